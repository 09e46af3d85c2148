"""A graph that resizes by PyTorch's rule, as one that resizes by the plain one."""

from __future__ import annotations

import graphs
import numpy as np
import onnx
import onnxruntime

from watcher.worker import resize


def rules_of(model):
    """The attributes that say by which rule."""
    return [a for node in model.graph.node for a in node.attribute if a.name.startswith("coordinate")]


def test_the_rule_changes_and_nothing_else_does(tmp_path):
    path = graphs.halves(tmp_path / "g.onnx")
    changed = onnx.load_from_string(resize.plainly(str(path)))
    onnx.checker.check_model(changed)
    rules = rules_of(changed)
    assert [rule.s for rule in rules] == [b"half_pixel"] * 2
    for rule in rules:
        rule.s = b"pytorch_half_pixel"
        rule.ClearField("doc_string")
    assert changed == onnx.load(path)


def test_both_rules_give_the_same(tmp_path):
    path = graphs.halves(tmp_path / "g.onnx")
    picture = np.random.default_rng(3).random((1, 3, 64, 64), np.float32)
    models = [str(path), resize.plainly(str(path))]
    sessions = [onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]) for graph in models]
    (given,), (plain,) = (session.run(None, {"input": picture}) for session in sessions)
    assert given.std() > 0.01
    assert np.abs(given - plain).max() < 1e-6


def test_a_graph_that_knows_no_such_rule_stays_as_it_is(tmp_path):
    path = graphs.one_map(tmp_path / "g.onnx")
    assert resize.plainly(str(path)) == path.read_bytes()

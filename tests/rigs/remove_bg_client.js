// remove.bg's client of npm, unmodified, sent to a service of ours: node remove_bg_client.js KEY PHOTO CUTOUT
const unirest = require("unirest");
const post = unirest.post;
unirest.post = (url, ...rest) => post(url.replace("https://api.remove.bg", process.env.SERVICE), ...rest);
const client = require("remove.bg");
const fs = require("fs");

const [apiKey, path, outputFile] = process.argv.slice(2);
const common = { apiKey, size: "full", outputFile };

(async () => {
  const said = {};
  const cutout = await client.removeBackgroundFromImageFile({ ...common, path });
  said.file = { bytes: Buffer.from(cutout.base64img, "base64").length, ...cutout, base64img: undefined };
  const base64img = fs.readFileSync(path, { encoding: "base64" });
  const flat = await client.removeBackgroundFromImageBase64({ ...common, base64img, bg_color: "ff0000", outputFile: undefined });
  said.base64 = { bytes: Buffer.from(flat.base64img, "base64").length };
  for (const [name, ask] of [
    ["url", () => client.removeBackgroundFromImageUrl({ ...common, url: "http://127.0.0.1/secret.jpg" })],
    ["key", () => client.removeBackgroundFromImageFile({ ...common, path, apiKey: "nobody" })],
  ])
    said[name] = await ask().then(() => "answered", (errors) => errors);
  console.log(JSON.stringify(said));
})();

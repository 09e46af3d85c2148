#!/bin/bash
# Boots a real systemd as PID 1 of its own namespaces, on a throw-away overlay of /. Needs root,
# util-linux and overlayfs; no container software, no image.
#
#   sdboot.sh start NAME [SOURCE:TARGET ...]   boot, or say why not and leave nothing; bind SOURCE of this machine at TARGET
#   sdboot.sh exec  NAME COMMAND...            run a command inside
#   sdboot.sh stop  NAME                       power off; nothing of it is left
#
# Loopback only. What is written inside is gone afterwards (in memory, SIZE=3g at most), and kernel
# settings (sysctl, sysfs) cannot be changed. CG=v1 enforces MemoryMax= and TasksMax=.
set -u
# Who runs tests may have no sbin in the path; without pivot_root there is no root to move into.
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
verb=${1:?} name=${2:?}
shift 2
STATE=/run/sdboot.$name
CG=${CG:-v2}
CLEAN=(env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)

fail() {
    echo "sdboot: $*" >&2
    exit 1
}

# Whether process $1 is of this machine: a number may be another's by now.
ours() {
    local groups
    groups=$(cat "/proc/$1/cgroup" 2>/dev/null)
    [[ "$groups"$'\n' == *"/sdboot.$name"[$'/\n']* ]]
}

# Control groups below our own, so that we stay accounted for; prints their folders.
make_cgroups() {
    local own base number controller path group
    own=$(awk -F: '$1 == 0 {print $3}' /proc/self/cgroup)
    base=$(findmnt -n -t cgroup2 -o TARGET | head -1)
    if [ -n "$base" ]; then
        make_group "$base${own%/}/sdboot.$name"
    elif [ "$CG" != v1 ]; then
        fail "no cgroup2 is mounted here"
    fi
    [ "$CG" = v1 ] || return 0
    while IFS=: read -r number controller path; do
        group=/sys/fs/cgroup/${controller#name=}${path%/}/sdboot.$name
        # One that is mounted nowhere counts for nobody.
        if [ "$number" = 0 ] || [ ! -d "${group%/*}" ]; then continue; fi
        if ! needed "$controller" && ! mkdir -p "$group" 2>/dev/null; then continue; fi
        make_group "$group"
        if [ "$controller" = cpuset ]; then # without these nothing may enter
            cat "$group/../cpuset.cpus" >"$group/cpuset.cpus" && cat "$group/../cpuset.mems" >"$group/cpuset.mems" ||
                fail "cannot give $group its processors and memory"
        fi
    done </proc/self/cgroup
}

# What units of ours are held to. Of the other controllers a host may lack some, or keep them to itself.
needed() {
    case $1 in name=systemd | memory | pids) return 0 ;; esac
    return 1
}

# Its name is printed first: what is half made is removed as well.
make_group() {
    echo "$1"
    [ -d "$1" ] || mkdir "$1" || fail "cannot make the control group $1"
}

start() {
    local bind source outer pid
    export STATE CG BINDS=
    for bind in "$@"; do
        source=$(realpath -e "${bind%%:*}") || fail "there is no ${bind%%:*} to bind"
        BINDS+=" $source:${bind#*:}"
    done
    outer=$(cat "$STATE/outer" 2>/dev/null)
    if ours "$outer"; then fail "$name is there already: stop it first"; fi
    stop # what was killed before it could
    mkdir "$STATE" || exit 1
    trap stop EXIT
    make_cgroups >"$STATE/cgroups"
    setsid bash -c 'while read -r group; do echo $$ >"$group/cgroup.procs" || exit 1; done <"$STATE/cgroups"
        exec unshare -m -p -u -i -n -C --fork --kill-child --propagation private "$0" boot "$1"' \
        "$0" "$name" </dev/null >"$STATE/console" 2>&1 &
    outer=$!
    echo "$outer" >"$STATE/outer"
    for _ in $(seq 300); do
        if ! kill -0 "$outer" 2>/dev/null; then
            tail -20 "$STATE/console" >&2
            fail "$name ended while it booted"
        fi
        pid=
        read -r pid _ 2>/dev/null <"/proc/$outer/task/$outer/children" # no newline there: its status says nothing
        if [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = systemd ]; then
            echo "$pid" >"$STATE/pid"
            case $(nsenter -a -t "$pid" systemctl is-system-running 2>/dev/null) in
                running | degraded)
                    trap - EXIT
                    return 0
                    ;;
            esac
        fi
        sleep 0.1
    done
    tail -20 "$STATE/console" >&2
    fail "$name has not booted within 30 s"
}

# In the new namespaces: move into a root of our own, put it together, become systemd.
boot() {
    [ $$ = 1 ] || fail "only start boots"
    # Half a machine is none, and one step too few may end in the root of the host: the first that fails is the last.
    set -eE
    trap 'echo "sdboot: line $LINENO failed: $BASH_COMMAND" >&2' ERR
    enter_root
    make_mounts
    make_devices
    bind_folders
    # From here on nothing of the host is in reach, but for what was bound.
    umount -l /.sdboot
    rmdir /.sdboot
    configure
    # What systemd does at boot, but not where it finds itself in a container: services see later mounts.
    mount --make-rshared /
    hostname sdboot
    ip link set lo up 2>/dev/null || true # there may be no such command, and few want it
    exec "${CLEAN[@]}" container=sdboot TERM=dumb /lib/systemd/systemd \
        --unit=sdboot.target --log-target=journal --show-status=0
}

# The host's root is at /.sdboot afterwards. Only from within can no link lead out into it.
enter_root() {
    local root=$STATE/root device
    mkdir "$STATE/disk" "$root"
    mount -t tmpfs -o "size=${SIZE:-3g}" tmpfs "$STATE/disk"
    mkdir "$STATE"/disk/{upper,work}
    mount -t overlay overlay -o "lowerdir=/,upperdir=$STATE/disk/upper,workdir=$STATE/disk/work" "$root"
    mountpoint -q "$root"
    device=$(stat -c %d "$root")
    mkdir "$root/.sdboot"
    cd "$root"
    # A systemd that began in the root of the machine itself would set that up anew, and empty its /tmp.
    pivot_root . .sdboot
    cd /
    [ "$(stat -c %d /)" = "$device" ]
}

make_mounts() {
    mount -t proc proc /proc
    mount --bind /proc/sys /proc/sys
    mount -o remount,bind,ro /proc/sys
    mount -t sysfs -o ro sysfs /sys
    mount_cgroups
    mount -t tmpfs -o mode=755 tmpfs /dev
    mkdir /dev/{pts,shm}
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts /dev/pts
    mount -t tmpfs tmpfs /dev/shm
    mount -t tmpfs -o mode=755 tmpfs /run
    mount -t tmpfs -o mode=1777 tmpfs /tmp
}

make_devices() {
    local device
    for device in null:3 zero:5 full:7 random:8 urandom:9; do
        mknod -m 666 "/dev/${device%:*}" c 1 "${device#*:}"
    done
    mknod -m 666 /dev/tty c 5 0
    ln -s pts/ptmx /dev/ptmx
    ln -s /proc/self/fd /dev/fd
    for device in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${device%:*}" "/dev/${device#*:}"; done
}

bind_folders() {
    local bind
    for bind in $BINDS; do
        mkdir -p "${bind#*:}"
        mount --bind "/.sdboot${bind%%:*}" "${bind#*:}"
    done
}

mount_cgroups() {
    local number controller folder named
    if [ "$CG" != v1 ]; then
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
        return
    fi
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    while IFS=: read -r number controller _; do
        folder=/sys/fs/cgroup/${controller#name=}
        if [ "$number" = 0 ]; then
            mkdir /sys/fs/cgroup/unified
            mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
        else
            mkdir "$folder"
            named=
            [ "${controller#name=}" = "$controller" ] || named=none,
            mount -t cgroup -o "$named$controller" cgroup "$folder" || ! needed "$controller"
        fi
    done </proc/self/cgroup
}

# A machine of its own: no disks to mount, no devices to wait for, a journal in memory.
configure() {
    local unit
    : >/etc/machine-id
    rm -f /etc/fstab
    : >/etc/fstab
    rm -rf /var/log/journal /usr/sbin/policy-rc.d
    mkdir -p /etc/systemd/journald.conf.d
    printf '[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\n' >/etc/systemd/journald.conf.d/sdboot.conf
    printf '%s\n' '[Unit]' 'Requires=basic.target dbus.socket' 'Wants=dbus.service multi-user.target' \
        'After=basic.target dbus.service' 'AllowIsolate=yes' >/etc/systemd/system/sdboot.target
    for unit in sysinit sockets basic timers local-fs multi-user; do
        rm -rf "/etc/systemd/system/$unit.target.wants"
    done
    for unit in systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket \
        systemd-udev-trigger.service systemd-hwdb-update.service systemd-networkd.service getty.target \
        getty@.service console-getty.service rpcbind.service rpcbind.socket run-rpc_pipefs.mount \
        sys-fs-fuse-connections.mount systemd-logind.service systemd-timesyncd.service; do
        ln -sf /dev/null "/etc/systemd/system/$unit"
    done
}

stop() {
    local pid outer group left
    [ -d "$STATE" ] || return 0
    pid=$(cat "$STATE/pid" 2>/dev/null)
    outer=$(cat "$STATE/outer" 2>/dev/null)
    if [ -n "$pid" ] && ours "$pid"; then
        kill -s RTMIN+4 "$pid" # power off
        for _ in $(seq 100); do
            ours "$pid" || break
            sleep 0.1
        done
    fi
    # PID 1 of the namespace takes everything in it along.
    if [ -n "$outer" ] && ours "$outer"; then kill -9 "$outer"; fi
    for _ in $(seq 100); do
        left=
        while read -r group; do
            find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null
            [ ! -d "$group" ] || left+=" $group"
        done <"$STATE/cgroups"
        [ -n "$left" ] || break
        sleep 0.1 # its last processes are on their way out
    done
    rm -rf --one-file-system "$STATE"
    [ -z "$left" ] || fail "these are left:$left"
}

case $verb in
    start) start "$@" ;;
    boot) boot ;;
    exec)
        pid=$(cat "$STATE/pid" 2>/dev/null) && ours "$pid" || fail "$name is not running"
        exec nsenter -a -t "$pid" "${CLEAN[@]}" HOME=/root LANG=C.UTF-8 SYSTEMD_PAGER=cat \
            SYSTEMD_COLORS=0 DEBIAN_FRONTEND=noninteractive "$@"
        ;;
    stop) stop ;;
    *) echo "start, exec or stop, not $verb" >&2; exit 64 ;;
esac

#!/bin/bash
# Boots a real systemd as PID 1 of its own namespaces, on a throw-away overlay of /. Needs root,
# util-linux and overlayfs; no container software, no image.
#
#   sdboot.sh start NAME [SOURCE:TARGET ...]   boot; bind SOURCE of this machine at TARGET
#   sdboot.sh exec  NAME COMMAND...            run a command inside
#   sdboot.sh stop  NAME                       power off; nothing of it is left
#
# Loopback only. What is written inside is gone afterwards (in memory, SIZE=3g at most), and kernel
# settings (sysctl) cannot be changed. CG=v1 enforces MemoryMax= and TasksMax=.
set -u
# Who runs tests may have no sbin in the path; without pivot_root there is no root to move into.
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
verb=${1:?} name=${2:?}
shift 2
STATE=/run/sdboot.$name
CG=${CG:-v2}
CLEAN=(env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)

# Control groups below our own, so that we stay accounted for; prints their folders.
make_cgroups() {
    local own base
    own=$(awk -F: '$1 == 0 {print $3}' /proc/self/cgroup)
    base=$(findmnt -n -t cgroup2 -o TARGET | head -1)
    mkdir -p "$base${own%/}/sdboot.$name"
    echo "$base${own%/}/sdboot.$name"
    [ "$CG" = v1 ] || return 0
    while IFS=: read -r number controller path; do
        [ "$number" = 0 ] && continue
        local group=/sys/fs/cgroup/${controller#name=}${path%/}/sdboot.$name
        mkdir -p "$group" || continue
        if [ "$controller" = cpuset ]; then # without these nothing may enter
            cat "$group/../cpuset.cpus" >"$group/cpuset.cpus"
            cat "$group/../cpuset.mems" >"$group/cpuset.mems"
        fi
        echo "$group"
    done </proc/self/cgroup
}

start() {
    mkdir -p "$STATE"
    export STATE CG BINDS="$*"
    make_cgroups >"$STATE/cgroups"
    setsid bash -c 'while read -r group; do echo $$ >"$group/cgroup.procs"; done <"$STATE/cgroups"
        exec unshare -m -p -u -i -n -C --fork --kill-child --propagation private "$0" boot "$1"' \
        "$0" "$name" </dev/null >"$STATE/console" 2>&1 &
    echo $! >"$STATE/outer"
    for _ in $(seq 300); do
        local outer pid=
        outer=$(cat "$STATE/outer")
        read -r pid _ 2>/dev/null <"/proc/$outer/task/$outer/children" # no newline there: its status says nothing
        if [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = systemd ]; then
            echo "$pid" >"$STATE/pid"
            case $(nsenter -a -t "$pid" systemctl is-system-running 2>/dev/null) in
                running | degraded) return 0 ;;
            esac
        fi
        sleep 0.1
    done
    echo "boot failed:" >&2
    tail -20 "$STATE/console" >&2
    return 1
}

# In the new namespaces: put a root together, move into it, become systemd.
boot() {
    local root=$STATE/root device
    mkdir -p "$STATE/disk" "$root"
    mount -t tmpfs -o "size=${SIZE:-3g}" tmpfs "$STATE/disk"
    mkdir -p "$STATE"/disk/{upper,work}
    mount -t overlay overlay -o "lowerdir=/,upperdir=$STATE/disk/upper,workdir=$STATE/disk/work" "$root" || exit 9
    mount -t proc proc "$root/proc"
    mount --bind "$root/proc/sys" "$root/proc/sys"
    mount -o remount,bind,ro "$root/proc/sys"
    mount -t sysfs sysfs "$root/sys"
    mount_cgroups "$root"
    mount -t tmpfs -o mode=755 tmpfs "$root/dev"
    for device in null:3 zero:5 full:7 random:8 urandom:9; do
        mknod -m 666 "$root/dev/${device%:*}" c 1 "${device#*:}"
    done
    mknod -m 666 "$root/dev/tty" c 5 0
    mkdir "$root"/dev/{pts,shm}
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    for device in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${device%:*}" "$root/dev/${device#*:}"; done
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
    mount -t tmpfs tmpfs "$root/dev/shm"
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    for device in $BINDS; do
        mkdir -p "$root${device#*:}"
        mount --bind "${device%%:*}" "$root${device#*:}"
    done
    configure "$root"
    mkdir -p "$root/.old"
    cd "$root" || exit 9
    # A systemd that began in the root of the machine itself would set that up anew, and empty its /tmp.
    pivot_root . .old || exit 9
    umount -l /.old || exit 9
    # What systemd does at boot, but not where it finds itself in a container: services see later mounts.
    mount --make-rshared /
    hostname sdboot
    ip link set lo up 2>/dev/null
    exec "${CLEAN[@]}" container=sdboot TERM=dumb /lib/systemd/systemd \
        --unit=sdboot.target --log-target=journal --show-status=0
}

mount_cgroups() {
    local root=$1
    if [ "$CG" != v1 ]; then
        mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
        return
    fi
    mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
    while IFS=: read -r number controller _; do
        local folder=$root/sys/fs/cgroup/${controller#name=}
        if [ "$number" = 0 ]; then
            mkdir "$root/sys/fs/cgroup/unified"
            mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup/unified"
        else
            mkdir "$folder"
            local named=
            [ "${controller#name=}" = "$controller" ] || named=none,
            mount -t cgroup -o "$named$controller" cgroup "$folder"
        fi
    done </proc/self/cgroup
}

# A machine of its own: no disks to mount, no devices to wait for, a journal in memory.
configure() {
    local root=$1 unit
    : >"$root/etc/machine-id"
    rm -f "$root/etc/fstab"
    : >"$root/etc/fstab"
    rm -rf "$root/var/log/journal" "$root/usr/sbin/policy-rc.d"
    mkdir -p "$root/etc/systemd/journald.conf.d"
    printf '[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\n' >"$root/etc/systemd/journald.conf.d/sdboot.conf"
    printf '%s\n' '[Unit]' 'Requires=basic.target dbus.socket' 'Wants=dbus.service multi-user.target' \
        'After=basic.target dbus.service' 'AllowIsolate=yes' >"$root/etc/systemd/system/sdboot.target"
    for unit in sysinit sockets basic timers local-fs multi-user; do
        rm -rf "$root/etc/systemd/system/$unit.target.wants"
    done
    for unit in systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket \
        systemd-udev-trigger.service systemd-hwdb-update.service systemd-networkd.service getty.target \
        getty@.service console-getty.service rpcbind.service rpcbind.socket run-rpc_pipefs.mount \
        sys-fs-fuse-connections.mount systemd-logind.service systemd-timesyncd.service; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
}

stop() {
    local pid group
    pid=$(cat "$STATE/pid" 2>/dev/null)
    if [ -n "$pid" ]; then
        kill -s RTMIN+4 "$pid" 2>/dev/null # power off
        for _ in $(seq 100); do
            [ -d "/proc/$pid" ] || break
            sleep 0.1
        done
    fi
    # PID 1 of the namespace takes everything in it along.
    kill -9 "$(cat "$STATE/outer")" 2>/dev/null
    for _ in $(seq 50); do
        [ -n "$pid" ] && [ -d "/proc/$pid" ] || break
        sleep 0.1
    done
    while read -r group; do
        for _ in 1 2 3; do find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null; done
    done <"$STATE/cgroups"
    rm -rf --one-file-system "$STATE"
}

case $verb in
    start) start "$@" ;;
    boot) boot ;;
    exec) exec nsenter -a -t "$(cat "$STATE/pid")" "${CLEAN[@]}" HOME=/root LANG=C.UTF-8 SYSTEMD_PAGER=cat \
        SYSTEMD_COLORS=0 DEBIAN_FRONTEND=noninteractive "$@" ;;
    stop) stop ;;
    *) echo "start, exec or stop, not $verb" >&2; exit 64 ;;
esac

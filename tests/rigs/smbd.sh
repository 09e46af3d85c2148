#!/bin/bash
# A Samba server of our own on 127.0.0.1: smbd.sh STATE FOLDER PORT, in the foreground until it is killed.
# Shares, for guests: in (plain), mac (vfs_fruit with AppleDouble files, as for macOS).
set -euo pipefail
state=$1 folder=$2 port=$3
mkdir -p "$state"/{lock,state,cache,private,pid,log,ncalrpc}
share() { # NAME
    printf '[%s]\n path = %s\n read only = no\n guest ok = yes\n force user = root\n' "$1" "$folder"
}
{
    cat <<END
[global]
 workgroup = T
 server role = standalone server
 interfaces = 127.0.0.1/8
 bind interfaces only = yes
 smb ports = $port
 disable netbios = yes
 disable spoolss = yes
 load printers = no
 printcap name = /dev/null
 lock directory = $state/lock
 state directory = $state/state
 cache directory = $state/cache
 private dir = $state/private
 pid directory = $state/pid
 ncalrpc dir = $state/ncalrpc
 log file = $state/log/smbd.log
 map to guest = bad user
 guest account = root
 server min protocol = SMB2
END
    share in
    share mac
    cat <<'END'
 vfs objects = catia fruit streams_xattr
 fruit:metadata = netatalk
 fruit:resource = file
 fruit:encoding = native
 fruit:veto_appledouble = no
 fruit:aapl = yes
END
} >"$state/smb.conf"
exec /usr/sbin/smbd -s "$state/smb.conf" --foreground --no-process-group --log-basename="$state/log" </dev/null

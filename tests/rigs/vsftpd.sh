#!/bin/bash
# A vsftpd of our own on 127.0.0.1: vsftpd.sh STATE FOLDER PORT, in the foreground until it is killed.
# Anybody may log in as anonymous and write.
set -euo pipefail
state=$1 folder=$2 port=$3
mkdir -p "$state/empty"
cat >"$state/conf" <<END
listen=YES
listen_address=127.0.0.1
listen_port=$port
background=NO
anonymous_enable=YES
anon_upload_enable=YES
anon_mkdir_write_enable=YES
anon_other_write_enable=YES
anon_world_readable_only=NO
no_anon_password=YES
anon_root=$folder
file_open_mode=0666
ftp_username=ftp
anon_umask=022
write_enable=YES
allow_writeable_chroot=YES
secure_chroot_dir=$state/empty
pasv_min_port=$((port + 1))
pasv_max_port=$((port + 20))
seccomp_sandbox=NO
local_enable=NO
END
exec /usr/sbin/vsftpd "$state/conf" </dev/null

#!/bin/sh
# Finishes a root of unpacked Debian packages, in the folder $1: what their
# installation scripts or a Dockerfile would have done.
set -eu
cd "$1"
mkdir -p bin etc root tmp uploads usr/local/bin
for name in $(bin/busybox --list); do
	for dir in bin sbin usr/bin usr/sbin; do
		[ -e "$dir/$name" ] && continue 2
	done
	ln -s /bin/busybox "bin/$name"
done
# Busybox's own shell drops variables whose names it does not like. Tests that want its
# messages name it by its path.
[ ! -e bin/bash ] || ln -s /bin/bash usr/local/bin/sh
ln -s agnhost agnhost-2
if [ -e bin/nc.openbsd ]; then
	ln -sf nc.openbsd bin/nc
	ln -sf bash bin/sh # busybox's would take its own nc and not this one
fi
cat >etc/passwd <<'USERS'
root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/var/www:/bin/sh
user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
USERS
cat >etc/group <<'GROUPS'
root:x:0:
www-data:x:33:
user-defined-in-image:x:1000:
group-defined-in-image:x:50000:user-defined-in-image
nogroup:x:65534:
GROUPS
echo 'hosts: files dns' >etc/nsswitch.conf
if [ -d etc/nginx ]; then
	mkdir -p run
	cat >etc/nginx/nginx.conf <<'NGINX'
user root;
pid /tmp/nginx.pid;
error_log /dev/stderr;
events {}
http {
	access_log /dev/stdout;
	server {
		listen 80;
		root /usr/share/nginx/html;
	}
}
NGINX
fi
rm -rf usr/share/doc usr/share/man usr/share/locale usr/share/info var/cache/apt

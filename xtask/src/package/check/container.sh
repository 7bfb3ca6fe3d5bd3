# container.sh FOLDER PROGRAM: as another user, in namespaces of its own, on overlayfs, with musl as its C library.
# Under: unshare --mount --pid --fork --kill-child
set -eu
mount -t tmpfs container "$1"
cd "$1"
mkdir -p lower/app lower/lib lower/proc upper work root
cp "$2" lower/app/shop
cp -L /lib/ld-musl-x86_64.so.1 lower/lib/
# Nobody but its owner may read it.
chmod 0700 lower/app lower/app/shop
chown -R 1000:1000 lower/app
mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work container root
mount -t proc proc root/proc
exec setpriv --reuid 1000 --regid 1000 --clear-groups --bounding-set -all,+sys_chroot --inh-caps -all,+sys_chroot \
    --ambient-caps -all,+sys_chroot chroot root /app/shop

# image.sh TREE STATE XTASK ARGUMENTS…: the image as a container runtime lays it out: root read-only, the host's
# processes in sight, the spool from outside, nothing else.
# Under: unshare --mount --propagation private
set -eu
tree=$1 state=$2 xtask=$3
shift 3
mount --bind "$tree" "$tree"
mkdir -p "$tree/proc" "$tree/sys" "$tree/dev"
mount --rbind /proc "$tree/proc"
mount --rbind /sys "$tree/sys"
mount -t tmpfs -o mode=755 dev "$tree/dev"
# Not even a source of random bytes: the system call is one.
touch "$tree/dev/null"
mount --bind /dev/null "$tree/dev/null"
mount -t tmpfs -o size=1m,mode=755 run "$tree/run/teracron"
mount --bind "$state" "$tree/var/lib/teracron"
mount -o remount,bind,ro "$tree"
exec "$xtask" enter --root "$tree" "$@"

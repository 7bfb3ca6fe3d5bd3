# unit.sh FOLDER GIVEN CGROUP: installs the package in a layer over this machine's root and starts its unit with all that it
# forbids, beside the host's processes. systemd there is a user's, but root's: only so it can be had without being
# process 1. Under: unshare --mount --propagation private
set -eu
given=$2 cgroup=$3
mkdir -p "$1"
mount -t tmpfs layer "$1"
cd "$1"
mkdir upper work root
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work layer root
cd root
for folder in proc sys dev; do mount --rbind "/$folder" "$folder"; done
mount -t tmpfs run run
mkdir -p given run/user/0
mount --bind "$given" given
mkdir .old
pivot_root . .old
cd /
umount -l /.old

dpkg -i /given/teracron-agent.deb > /dev/null
# What process 1 makes when it starts.
hidden=/run/systemd/inaccessible
mkdir -p /run/systemd/system "$hidden/dir" /etc/systemd/user
: > "$hidden/reg"
mkfifo "$hidden/fifo"
mknod "$hidden/chr" c 0 0
mknod "$hidden/blk" b 0 0
chmod 0 "$hidden"/*
# A user's manager has no network target.
sed '/^Wants=/d; /^After=/d' /usr/lib/systemd/system/teracron-agent.service > /etc/systemd/user/teracron-agent.service
cat > /etc/teracron/agent.toml <<'TOML'
exe = ["/given/shop"]
output = "json"
run_dir = "/run/user/0/teracron"

[[probe]]
workflow = "shop"
function = "pay"
capture = ["order=arg1:i64"]
TOML

# Groups of its own, so that it touches nobody else's processes.
for hierarchy in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
    if [ -e "$hierarchy/cgroup.procs" ]; then
        mkdir -p "$hierarchy/$cgroup"
        echo $$ > "$hierarchy/$cgroup/cgroup.procs"
    fi
done
export XDG_RUNTIME_DIR=/run/user/0 HOME=/root
setpriv --reuid 65534 --clear-groups /given/shop > /dev/null &
shop=$!
/usr/lib/systemd/systemd --user --log-target=console --log-level=warning \
    --default-standard-output=inherit --default-standard-error=inherit > /given/unit.log 2>&1 &
manager=$!
end() {
    kill -KILL $shop $manager
    wait
}
trap end EXIT

# until_true CONDITION: for ten seconds.
until_true() {
    for _ in $(seq 100); do
        if eval "$1"; then return 0; fi
        sleep 0.1
    done
    cat /given/unit.log
    return 1
}

until_true 'systemctl --user show -P Version > /dev/null 2>&1'
systemctl --user start teracron-agent
until_true "grep -q '\"order\"' /given/unit.log"
test "$(systemctl --user show -P ActiveState teracron-agent)" = active
teracron-agent status --run-dir /run/user/0/teracron > /dev/null
systemctl --user reload teracron-agent
sleep 1
systemctl --user stop teracron-agent
test "$(systemctl --user show -P Result teracron-agent)" = success
until_true 'grep -q "none lost" /given/unit.log'
kill -0 $shop
echo "  the unit: $(grep -c '"order"' /given/unit.log) spans, none lost"

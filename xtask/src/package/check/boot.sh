# boot.sh FOLDER GIVEN: boots systemd in a layer over this machine's root, which runs GIVEN/installed.sh and ends with
# its status. Under: unshare --mount --propagation private
set -eu
mkdir -p "$1"
mount -t tmpfs layer "$1"
cd "$1"
mkdir upper work root
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work layer root
units=root/etc/systemd/system
cat > "$units/check.target" <<'UNIT'
[Unit]
Requires=check.service systemd-journald.service
UNIT
cat > "$units/check.service" <<'UNIT'
[Unit]
DefaultDependencies=no
After=systemd-journald.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c '/bin/sh /given/installed.sh > /given/told 2>&1; systemctl exit $?'
UNIT
# What a container runtime withholds and the agent needs; the unit takes the rest away again.
exec systemd-nspawn --register=no --keep-unit --quiet --boot --directory=root --bind="$2:/given" \
    --capability=all --system-call-filter="bpf perf_event_open" systemd.unit=check.target

# Runs in a booted system of its own, as its only service: installs the package, starts the unit, removes the package.
# That system has process ids of its own, where only memory can be sampled: unit.sh traces.
set -eux

# until_true CONDITION: for ten seconds.
until_true() {
    for _ in $(seq 100); do
        if eval "$1"; then return 0; fi
        sleep 0.1
    done
    journalctl --no-pager -u teracron-agent -o cat | tail -n 20
    return 1
}

dpkg -i /given/teracron-agent.deb
getent passwd teracron
test "$(stat -c '%a %U' /etc/teracron/agent.toml)" = "600 root"
zcat /usr/share/man/man1/teracron-agent.1.gz | grep -q probe
bash -c '. /usr/share/bash-completion/completions/teracron-agent && complete -p teracron-agent'
systemd-analyze verify /usr/lib/systemd/system/teracron-agent.service
# Of 100, with what perf events want. What is left: root's user id, other processes, the network, eBPF.
systemd-analyze security --no-pager --threshold=36 teracron-agent.service > /dev/null

# As it comes it is not started, nothing is traced, and that is not tried again and again.
test "$(systemctl is-enabled teracron-agent)" = disabled
systemctl start teracron-agent || true
until_true 'test "$(systemctl show -P ActiveState teracron-agent)" = failed'
test "$(systemctl show -P ExecMainStatus teracron-agent)" = 2

# Nor is silence taken for tracing where process ids are not the kernel's own.
status=0
teracron-agent --exe /given/shop --probe pay --duration 1 2> /given/refused || status=$?
test $status = 3
grep -q hostPID /given/refused

# Samples of memory that nobody takes wait in the state directory.
/given/shop > /dev/null &
cat > /etc/teracron/agent.toml <<TOML
exe = ["/given/shop"]
tracing_enabled = false
interval = 5
api_key = "$(cat /given/api-key)"
domain = "localhost:1"
allow_custom_domain = true
max_buffer = 1
shutdown_timeout = 0
TOML
systemctl enable --now teracron-agent
until_true 'find /var/lib/teracron -name "*.sealed" | grep -q .'
teracron-agent status | head -n 3
dpkg -i /given/teracron-agent.deb
systemctl is-active teracron-agent
test "$(systemctl show -P NRestarts teracron-agent)" = 0

dpkg -r teracron-agent
test ! -e /usr/bin/teracron-agent
test "$(systemctl show -P ActiveState teracron-agent)" != active
test -e /etc/teracron/agent.toml
dpkg -P teracron-agent
test ! -e /var/lib/teracron
test ! -e /etc/teracron
set +x
echo "  installed, started, updated and removed"

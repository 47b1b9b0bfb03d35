package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
)

// A network that leads through a VPN is a namespace whose only device, besides the
// loopback, is the tunnel of an OpenVPN client of its own. The client itself is
// outside: its connection to the server is the host's, and nothing of the
// namespace's can go any other way. While the client is not connected nothing
// leaves at all.
//
// It outlives whoever has started it, as the namespace does. A shell watches over
// it, starts it again where it has ended, and ends with the namespace.

const (
	// vpnWatch is the shell's program, and vpnUp what OpenVPN calls when it has a
	// tunnel: files in the record's folder.
	vpnWatch = "vpn-watch"
	vpnUp    = "vpn-up"
	// vpnState is there while there is a tunnel: what the server has said.
	vpnState = "vpn-state"
	// vpnLog is what OpenVPN has said since it was started.
	vpnLog = "vpn-log"
	// vpnEnded is there once OpenVPN has ended for the first time.
	vpnEnded = "vpn-ended"
	// vpnPoll is how often it is looked whether there is a tunnel.
	vpnPoll = 50 * time.Millisecond
	// maxVPNState bounds what is read of what the server has said.
	maxVPNState = 16 << 10
)

// watchScript has its folder, the operator's configuration and the device's name as
// arguments. Neither addresses nor routes are OpenVPN's to set: it would set the
// host's.
const watchScript = `folder=$1 config=$2 device=$3
while [ -e "$folder/ns" ]; do
	openvpn --cd "${config%/*}" --config "$config" --dev "$device" --dev-type tun --verb 1 --log "$folder/` + vpnLog + `" \
		--ifconfig-noexec --route-noexec --auth-nocache --script-security 2 --up "/bin/sh \"$folder/` + vpnUp + `\" \"$folder\""
	rm -f "$folder/` + vpnState + `"
	[ -e "$folder/` + vpnEnded + `" ] || : >"$folder/` + vpnEnded + `"
	sleep 2
done
`

// upScript moves a tunnel into the namespace and gives it its address. What the
// server has said stands in variables.
const upScript = `set -eu
folder=$1
ip link set dev "$dev" netns "$folder/ns"
inside() { nsenter --net="$folder/ns" "$@"; }
inside ip link set dev "$dev" name ` + vpnDevice + ` mtu "${tun_mtu:-1500}"
inside ip link set dev ` + vpnDevice + ` up
if [ -n "${ifconfig_netmask-}" ]; then
	inside ip -4 addr add "$ifconfig_local/$ifconfig_netmask" dev ` + vpnDevice + `
else
	inside ip -4 addr add "$ifconfig_local" peer "$ifconfig_remote" dev ` + vpnDevice + `
fi
inside ip -4 route add default dev ` + vpnDevice + `
{
	echo "address $ifconfig_local ${ifconfig_netmask-}"
	env | sed -n 's/^foreign_option_[0-9]*=dhcp-option //p'
} >"$folder/` + vpnState + `.new"
mv "$folder/` + vpnState + `.new" "$folder/` + vpnState + `"
`

// VPNUsable returns nil if what a VPN needs is installed.
func VPNUsable() error {
	for _, program := range []string{"openvpn", "ip", "nsenter", nftProgram} {
		if _, err := findProgram(program); err != nil {
			return failure(caisson.ErrUnsupported, "network: openvpn", fmt.Errorf("%s is not installed; install openvpn, iproute2, util-linux and nftables", program))
		}
	}
	return nil
}

// checkVPNFile refuses a configuration that is not there, or with which OpenVPN could
// not be watched over.
func checkVPNFile(name, file string) error {
	item := fmt.Sprintf("network %q", name)
	data, err := readLimited(file, maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return failure(caisson.ErrNotFound, item, fmt.Errorf("%s is not there", file))
	}
	if err != nil {
		return failure(caisson.ErrDenied, item, err)
	}
	for line := range strings.Lines(string(data)) {
		if w := strings.Fields(line); len(w) > 0 && w[0] == "daemon" {
			return failure(caisson.ErrInvalid, item, fmt.Errorf("%s: leave out daemon: Caisson watches over it", file))
		}
	}
	return nil
}

// findProgram finds a program of the system, also where PATH is a user's.
func findProgram(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/", "/usr/bin/", "/bin/"} {
		if _, statErr := os.Stat(dir + name); statErr == nil {
			return dir + name, nil
		}
	}
	return "", err
}

// vpnFilter lets nobody on the VPN begin a conversation, and nothing out but by the
// tunnel.
const vpnFilter = `table inet caisson {
 chain output {
  type filter hook output priority 0; policy drop;
  oifname "lo" accept
  oifname "` + vpnDevice + `" meta nfproto ipv4 accept
 }
 chain input {
  type filter hook input priority 0; policy drop;
  iifname "lo" accept
  ct state established,related accept
 }
}
`

// joinVPN starts the client and waits for its tunnel.
func (r *Record) joinVPN(ctx context.Context, a *Attachment) error {
	if err := inNamespace(r.Path(), func() error { return loadFilter(ctx, vpnFilter) }); err != nil {
		return err
	}
	for name, text := range map[string]string{vpnWatch: watchScript, vpnUp: upScript} {
		if err := os.WriteFile(filepath.Join(r.Folder, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	// The first shell ends at once, so that nobody here has to wait for the second.
	cmd := exec.Command("/bin/sh", "-c", `"$@" </dev/null >/dev/null 2>&1 &`, "sh",
		"/bin/sh", filepath.Join(r.Folder, vpnWatch), r.Folder, a.File, r.tunnelName())
	cmd.Env, cmd.Dir = pluginEnv(nil), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Run(); err != nil {
		return failure(caisson.ErrUnavailable, fmt.Sprintf("network %q", a.Name), err)
	}
	return r.awaitVPN(ctx, a)
}

// tunnelName is what the tunnel is called while it is the host's.
func (r *Record) tunnelName() string {
	const digits = 8
	return "cvpn" + strings.TrimPrefix(r.tableName(), "caisson_")[:digits]
}

// awaitVPN waits until there is a tunnel, and notes what it has.
func (r *Record) awaitVPN(ctx context.Context, a *Attachment) error {
	limited, cancel := context.WithTimeout(ctx, r.Patience.Std())
	defer cancel()
	tick := time.NewTicker(vpnPoll)
	defer tick.Stop()
	for {
		data, err := readLimited(filepath.Join(r.Folder, vpnState), maxVPNState)
		if err == nil {
			return a.noteVPN(data)
		}
		item := fmt.Sprintf("network %q", a.Name)
		if _, err := os.Stat(filepath.Join(r.Folder, vpnEnded)); err == nil {
			return failure(caisson.ErrUnavailable, item, fmt.Errorf("openvpn has ended, see %s: %s", a.File, r.lastOfVPN()))
		}
		select {
		case <-tick.C:
		case <-limited.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return failure(caisson.ErrUnavailable, item, fmt.Errorf("openvpn was not connected within %v, see %s: %s", r.Patience.Std(), a.File, r.lastOfVPN()))
		}
	}
}

// readLimited reads a small file.
func readLimited(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s: it is larger than %d bytes", path, limit)
	}
	return os.ReadFile(path)
}

// lastOfVPN is the last line that OpenVPN has said.
func (r *Record) lastOfVPN() string {
	data, err := os.ReadFile(filepath.Join(r.Folder, vpnLog))
	if err != nil {
		return "it has said nothing"
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	const most = 300
	last := lines[len(lines)-1]
	return strings.ToValidUTF8(last[:min(len(last), most)], "?")
}

// noteVPN keeps what people want to know of a tunnel. A server says it, so nothing of
// it is taken that is not of the right form.
func (a *Attachment) noteVPN(state []byte) error {
	a.Addresses, a.DNS = nil, nil
	dns := new(caisson.DNS)
	for line := range strings.Lines(string(state)) {
		w := strings.Fields(line)
		switch {
		case len(w) >= 2 && w[0] == "address":
			if addr, err := netip.ParseAddr(w[1]); err == nil && addr.Is4() {
				a.Addresses = []string{netip.PrefixFrom(addr, maskBits(w[2:])).String()}
			}
		case len(w) == 2 && w[0] == "DNS":
			if addr, err := netip.ParseAddr(w[1]); err == nil {
				dns.Servers = append(dns.Servers, addr.String())
			}
		case len(w) == 2 && (w[0] == "DOMAIN" || w[0] == "DOMAIN-SEARCH"):
			dns.Search = append(dns.Search, w[1])
		}
	}
	if len(dns.Servers)+len(dns.Search) > 0 && CheckDNS(dns) == nil {
		a.DNS = dns
	}
	if len(a.Addresses) == 0 {
		return failure(caisson.ErrUnavailable, fmt.Sprintf("network %q", a.Name), errors.New("the VPN's server has given no address of IPv4"))
	}
	return nil
}

// maskBits is the length of a prefix by its mask, or that of a single address.
func maskBits(mask []string) int {
	const all = 32
	if len(mask) == 0 {
		return all
	}
	ip := net.ParseIP(mask[0]).To4()
	if ip == nil {
		return all
	}
	ones, _ := net.IPMask(ip).Size()
	return ones
}

// checkVPN returns nil if there is a tunnel.
func (r *Record) checkVPN(a *Attachment) error {
	if _, err := os.Stat(filepath.Join(r.Folder, vpnState)); err == nil && len(r.vpnProcesses()) > 0 {
		return nil
	}
	return failure(caisson.ErrUnavailable, fmt.Sprintf("network %q", a.Name), fmt.Errorf("openvpn is not connected: %s", r.lastOfVPN()))
}

// leaveVPN ends the client and who watches over it.
func (r *Record) leaveVPN(ctx context.Context) error {
	for {
		list := r.vpnProcesses()
		if len(list) == 0 {
			return nil
		}
		for _, pid := range list {
			// With what it has started. Nobody else is in its group: the shell that led it
			// has ended at once.
			if group, err := unix.Getpgid(pid); err == nil && group > 1 && group != unix.Getpgrp() {
				pid = -group
			}
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("openvpn: %w", err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(vpnPoll):
		}
	}
}

// vpnProcesses are those of root's that have one of the record's files as an
// argument: the shell, OpenVPN, and what it calls.
func (r *Record) vpnProcesses() []int {
	entries, _ := os.ReadDir("/proc")
	mark := [][]byte{[]byte(filepath.Join(r.Folder, vpnWatch)), []byte(filepath.Join(r.Folder, vpnUp))}
	var list []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err != nil || !slices.ContainsFunc(mark, func(m []byte) bool { return bytes.Contains(line, m) }) {
			continue
		}
		// Anybody can have such an argument.
		info, err := os.Stat("/proc/" + e.Name())
		if err == nil && ownedByRoot(info) {
			list = append(list, pid)
		}
	}
	return list
}

func ownedByRoot(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Uid == 0
}

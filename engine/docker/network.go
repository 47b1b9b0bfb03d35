package docker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/client"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/network"
	"github.com/caissonrun/caisson/keeper"
)

// networkName is the name of a network that several sandboxes share.
func (e *Engine) networkName(id string) string {
	return "caisson-" + e.opts.Installation + "-net-" + id
}

// A shared is what the handle of such a network says.
type shared struct {
	Name string `json:"name"`
	// Allow says that it is one with an allow-list: nothing but its containers
	// can be reached on it.
	Allow bool `json:"allow,omitempty"`
}

// MakeNetwork implements engine.Networker by a network of the daemon's. One
// without a mode, or none, or with an allow-list, has no way out.
func (e *Engine) MakeNetwork(ctx context.Context, spec *engine.NetworkSpec) error {
	if err := e.boxes.Open(ctx, caisson.OpCreate); err != nil {
		return err
	}
	f, err := e.facts(ctx)
	if err != nil {
		return err
	}
	refuse := func(kind caisson.Kind, why string) error {
		return &caisson.Error{Op: caisson.OpCreate, Item: "network", Kind: kind, Err: errors.New(why)}
	}
	switch mode := spec.Network.Mode; {
	case !f.networks:
		return refuse(caisson.ErrUnsupported, "this daemon can't make networks")
	case mode == caisson.NetworkDefault && !f.network:
		return refuse(caisson.ErrUnsupported, "there is no default network here (engine.docker.network)")
	case mode == caisson.NetworkAllow && f.ungated != nil:
		return kept.Unsupported("network", f.ungated)
	case len(spec.Network.Attach) > 0, !alone(&spec.Network) && mode != caisson.NetworkDefault:
		return refuse(caisson.ErrUnsupported, "this engine shares networks of mode none, default and allow only")
	}
	name := e.networkName(spec.ID)
	allow := spec.Network.Mode == caisson.NetworkAllow
	data, err := json.Marshal(&shared{Name: name, Allow: allow})
	if err != nil {
		return err
	}
	boot, err := engine.BootID()
	if err != nil {
		return err
	}
	if err := engine.WriteHandle(spec.Dir, &engine.Handle{Engine: Name, ID: spec.ID, BootID: boot, Data: data}); err != nil {
		return err
	}
	if allow {
		if err := os.WriteFile(filepath.Join(spec.Dir, hostsName), []byte(hostsBase), 0o644); err != nil {
			return errors.Join(err, forget(spec.Dir))
		}
	}
	_, err = call(ctx, "network", func(ctx context.Context) (client.NetworkCreateResult, error) {
		return e.daemon.NetworkCreate(ctx, name, client.NetworkCreateOptions{
			Driver: "bridge", Internal: spec.Network.Mode != caisson.NetworkDefault,
			Labels: map[string]string{
				labelInstallation: e.opts.Installation, labelNetwork: spec.ID,
				labelTask: spec.Task, labelAttempt: strconv.Itoa(spec.Attempt),
			},
		})
	})
	if err != nil {
		undoing, cancel := bounded(context.WithoutCancel(ctx))
		defer cancel()
		return errors.Join(err, e.daemon.removeNetwork(undoing, name), forget(spec.Dir))
	}
	return nil
}

// forget removes what a network has in its folder, if it is there.
func forget(dir string) error {
	var all []error
	for _, name := range []string{hostsName, engine.HandleFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}

// RemoveNetwork implements engine.Networker.
func (e *Engine) RemoveNetwork(ctx context.Context, dir string) error {
	if err := e.boxes.Open(ctx, caisson.OpDestroy); err != nil {
		return err
	}
	s, err := readShared(dir)
	if errors.Is(err, caisson.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := e.daemon.removeNetwork(ctx, s.Name); err != nil {
		return err
	}
	return forget(dir)
}

// readShared reads the handle of a shared network.
func readShared(dir string) (*shared, error) {
	h, err := engine.ReadHandle(dir, Name)
	if err != nil {
		return nil, err
	}
	s := new(shared)
	return s, json.Unmarshal(h.Data, s)
}

// sharedBy returns the network that a spec shares, or nil.
func sharedBy(spec *engine.Spec) (*shared, error) {
	if spec.SharedNetwork == "" {
		return nil, nil
	}
	return readShared(spec.SharedNetwork)
}

// removeNetwork removes a network if it is there.
func (d *daemon) removeNetwork(ctx context.Context, name string) error {
	_, err := call(ctx, "network "+name, func(ctx context.Context) (client.NetworkRemoveResult, error) {
		return d.NetworkRemove(ctx, name, client.NetworkRemoveOptions{})
	})
	if notFound(err) {
		return nil
	}
	return err
}

// Networks implements engine.NetworkLister.
func (e *Engine) Networks(ctx context.Context, dir string) ([]engine.Network, error) {
	h, err := engine.ReadHandle(dir, Name)
	if err != nil {
		return nil, err
	}
	r, err := call(ctx, h.ID, func(ctx context.Context) (client.ContainerInspectResult, error) {
		return e.daemon.ContainerInspect(ctx, e.containerName(h.ID), client.ContainerInspectOptions{})
	})
	if err != nil {
		return nil, err
	}
	settings := r.Container.NetworkSettings
	if settings == nil || r.Container.Config == nil {
		return nil, nil
	}
	var list []engine.Network
	for name, n := range settings.Networks {
		if n == nil || name == "none" {
			continue
		}
		one := engine.Network{Name: name, Plugin: "docker", MAC: n.MacAddress.String()}
		if n.IPAddress.IsValid() {
			one.Addresses = append(one.Addresses, fmt.Sprintf("%s/%d", n.IPAddress, n.IPPrefixLen))
		}
		if n.GlobalIPv6Address.IsValid() {
			one.Addresses = append(one.Addresses, fmt.Sprintf("%s/%d", n.GlobalIPv6Address, n.GlobalIPv6PrefixLen))
		}
		list = append(list, one)
	}
	order := strings.Split(r.Container.Config.Labels[labelNetworks], ",")
	slices.SortFunc(list, func(a, b engine.Network) int {
		return cmp.Compare(slices.Index(order, a.Name), slices.Index(order, b.Name))
	})
	if len(list) > 0 {
		for port, bindings := range settings.Ports {
			for _, b := range bindings {
				host, _ := strconv.Atoi(b.HostPort)
				list[0].Ports = append(list[0].Ports, caisson.Port{
					Port: int(port.Num()), Protocol: string(port.Proto()), HostPort: host, HostIP: b.HostIP.String(),
				})
			}
		}
	}
	return list, nil
}

// dialTime bounds one attempt to reach a port.
const dialTime = 10 * time.Second

// Dial implements engine.Networker.
func (e *Engine) Dial(ctx context.Context, dir string, port int) (net.Conn, error) {
	apart, err := e.apart(dir)
	if err == nil && apart {
		return dialInside(ctx, dir, port)
	}
	if err != nil && !errors.Is(err, caisson.ErrNotFound) {
		return nil, err
	}
	list, err := e.Networks(ctx, dir)
	if err != nil {
		return nil, &caisson.Error{Op: caisson.OpExec, Item: dir, Kind: caisson.ErrAborted, Err: err}
	}
	var last error = errors.New("the container has no address")
	for _, n := range list {
		for _, a := range n.Addresses {
			ip, _, err := net.ParseCIDR(a)
			if err != nil {
				continue
			}
			dialer := net.Dialer{Timeout: dialTime}
			conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(ip.String(), strconv.Itoa(port)))
			if err == nil {
				return conn, nil
			}
			last = err
		}
	}
	return nil, &caisson.Error{Op: caisson.OpExec, Item: dir, Kind: caisson.ErrUnavailable, Err: last}
}

// apart reports whether a sandbox is on a network with an allow-list: the host
// does not reach it there either.
func (e *Engine) apart(dir string) (bool, error) {
	h, err := engine.ReadHandle(dir, Name)
	if err != nil {
		return false, err
	}
	var rec kept.Record
	var own mine
	if err := json.Unmarshal(h.Data, &rec); err != nil {
		return false, err
	}
	err = json.Unmarshal(rec.Data, &own)
	return own.Apart, err
}

// dialInside connects on the loopback device of a sandbox.
func dialInside(ctx context.Context, dir string, port int) (net.Conn, error) {
	k, err := keeper.Dial(ctx, dir)
	if err != nil {
		return nil, &caisson.Error{Op: caisson.OpExec, Item: dir, Kind: caisson.ErrAborted, Err: err}
	}
	status, err := k.Status(ctx)
	k.Close()
	if err != nil || status.BoxPID == 0 {
		return nil, &caisson.Error{
			Op: caisson.OpExec, Item: dir, Kind: caisson.ErrUnavailable,
			Err: fmt.Errorf("its keeper does not tell where it is: %w", err),
		}
	}
	return network.Dial(ctx, "/proc/"+strconv.Itoa(status.BoxPID)+"/ns/net", port)
}

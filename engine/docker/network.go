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
)

// networkName is the name of a network that several sandboxes share.
func (e *Engine) networkName(id string) string {
	return "caisson-" + e.opts.Installation + "-net-" + id
}

// A shared is what the handle of such a network says.
type shared struct {
	Name string `json:"name"`
}

// MakeNetwork implements engine.Networker by a network of the daemon's. One
// without a mode, or none, has no way out.
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
	case len(spec.Network.Attach) > 0, mode != "" && mode != caisson.NetworkNone && mode != caisson.NetworkDefault:
		return refuse(caisson.ErrUnsupported, "this engine shares networks of mode none and default only")
	}
	name := e.networkName(spec.ID)
	data, err := json.Marshal(&shared{Name: name})
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
		return errors.Join(err, e.daemon.removeNetwork(undoing, name), os.Remove(filepath.Join(spec.Dir, engine.HandleFile)))
	}
	return nil
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
	err = os.Remove(filepath.Join(dir, engine.HandleFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
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

// sharedName returns the name of the network that a spec shares, or "".
func (e *Engine) sharedName(spec *engine.Spec) (string, error) {
	if spec.SharedNetwork == "" {
		return "", nil
	}
	s, err := readShared(spec.SharedNetwork)
	if err != nil {
		return "", err
	}
	return s.Name, nil
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

package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/caissonrun/caisson"
)

// maxConfig is the largest configuration of a network that is read.
const maxConfig = 1 << 20

// A found network is a configuration with where it was read.
type foundNetwork struct {
	file string
	list *libcni.NetworkConfigList
}

// networks reads the operator's configurations, in the order of their files'
// names. Files that can't be used are returned as errors, by name.
func (o *Options) networks() (found []foundNetwork, broken []error) {
	dir := o.configDir()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, []error{err}
	}
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if !slices.Contains([]string{".conflist", ".conf", ".json"}, ext) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		list, err := readConfig(path)
		if err != nil {
			broken = append(broken, fmt.Errorf("%s: %w", path, err))
			continue
		}
		found = append(found, foundNetwork{path, list})
	}
	return found, broken
}

// readConfig reads one file: a list of plugins, or a single plugin's.
func readConfig(path string) (*libcni.NetworkConfigList, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > maxConfig:
		return nil, errors.New("not a file of at most a megabyte")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	list, err := readList(data)
	if err != nil {
		return nil, err
	}
	if len(list.Plugins) > 0 {
		return list, nil
	}
	return listOfOne(data)
}

// listOfOne is the list that the older form of a file, a single plugin's, stands
// for.
func listOfOne(data []byte) (*libcni.NetworkConfigList, error) {
	single, err := libcni.NetworkPluginConfFromBytes(data)
	if err != nil {
		return nil, err
	}
	data, err = json.Marshal(map[string]any{
		"name": single.Network.Name, "cniVersion": single.Network.CNIVersion, "plugins": []json.RawMessage{data},
	})
	if err != nil {
		return nil, err
	}
	return readList(data)
}

func readList(data []byte) (*libcni.NetworkConfigList, error) {
	list, err := libcni.NetworkConfFromBytes(data)
	if err == nil && list.Name == "" {
		err = errors.New("it has no name")
	}
	return list, err
}

// Networks returns the names of the networks that could be attached to, and why
// others can't.
func (o *Options) Networks() (names []string, broken []error) {
	found, broken := o.networks()
	for _, n := range found {
		if err := o.checkPlugins(n.list); err != nil {
			broken = append(broken, fmt.Errorf("%s: %w", n.file, err))
			continue
		}
		if o.VPNs[n.list.Name] != "" {
			broken = append(broken, fmt.Errorf("%s: a VPN is called %q, too", n.file, n.list.Name))
			continue
		}
		names = append(names, n.list.Name)
	}
	vpns, errs := o.vpns()
	return append(names, vpns...), append(broken, errs...)
}

// Publishes reports whether the network of a name can publish ports.
func (o *Options) Publishes(name string) bool {
	found, _ := o.networks()
	i := slices.IndexFunc(found, func(n foundNetwork) bool { return n.list.Name == name })
	return i >= 0 && (&Attachment{Config: found[i].list.Bytes}).can("portMappings")
}

func (o *Options) checkPlugins(list *libcni.NetworkConfigList) error {
	for _, p := range list.Plugins {
		if _, err := findPlugin(p.Network.Type, o.pluginDirs()); err != nil {
			return err
		}
		if p.Network.IPAM.Type == "" {
			continue
		}
		if _, err := findPlugin(p.Network.IPAM.Type, o.pluginDirs()); err != nil {
			return err
		}
	}
	return nil
}

// plan finds the i-th network that a task asks for.
func (o *Options) plan(a *caisson.NetworkAttach, i int) (*Attachment, error) {
	item := fmt.Sprintf("network %q", a.Name)
	found, broken := o.networks()
	at := slices.IndexFunc(found, func(n foundNetwork) bool { return n.list.Name == a.Name })
	if at < 0 {
		var names []string
		for _, n := range found {
			names = append(names, n.list.Name)
		}
		err := fmt.Errorf("there is none in %s; there are: %s", o.configDir(), strings.Join(names, ", "))
		if len(names) == 0 {
			err = fmt.Errorf("there is none in %s", o.configDir())
		}
		if len(broken) > 0 {
			err = fmt.Errorf("%w; not readable: %w", err, errors.Join(broken...))
		}
		return nil, failure(caisson.ErrNotFound, item, oneLine(err))
	}
	n := found[at]
	if err := o.checkPlugins(n.list); err != nil {
		return nil, failure(caisson.ErrUnsupported, item, fmt.Errorf("%s: %w", n.file, err))
	}
	plugin, _ := findPlugin(n.list.Plugins[0].Network.Type, o.pluginDirs())
	return &Attachment{
		Name: a.Name, Interface: fmt.Sprintf("eth%d", i), File: n.file, Plugin: plugin, Config: n.list.Bytes,
		Args: maps.Clone(a.Args), Aliases: slices.Clone(a.Aliases),
	}, nil
}

// list returns the configuration as libcni wants it.
func (a *Attachment) list() (*libcni.NetworkConfigList, error) {
	list, err := readList(a.Config)
	if err == nil && len(list.Plugins) == 0 {
		err = errors.New("it has no plugins")
	}
	return list, err
}

// can reports whether a plugin of the network has a capability.
func (a *Attachment) can(capability string) bool {
	list, err := a.list()
	return err == nil && slices.ContainsFunc(list.Plugins, func(p *libcni.PluginConfig) bool {
		return p.Network.Capabilities[capability]
	})
}

// cni returns libcni with a cache below the record's folder: what the plugins
// answered is needed to undo it.
func (r *Record) cni() *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir(r.PluginDirs, filepath.Join(r.Folder, "cni"), &plugins{})
}

// runtime is what plugins are told about the namespace. What has a capability
// goes that way, everything else by CNI_ARGS, which plugins that do not know
// them ignore.
func (r *Record) runtime(a *Attachment, path string) *libcni.RuntimeConf {
	rt := &libcni.RuntimeConf{ContainerID: r.ID, NetNS: path, IfName: a.Interface, CapabilityArgs: map[string]any{}}
	rt.Args = append(rt.Args, [2]string{"IgnoreUnknown", "1"})
	for _, name := range slices.Sorted(maps.Keys(a.Args)) {
		value := a.Args[name]
		switch {
		case name == "IP" && a.can("ips"):
			rt.CapabilityArgs["ips"] = strings.Split(value, ",")
		case name == "MAC" && a.can("mac"):
			rt.CapabilityArgs["mac"] = value
		default:
			rt.Args = append(rt.Args, [2]string{name, value})
		}
	}
	if len(a.Ports) > 0 {
		var list []map[string]any
		for _, p := range a.Ports {
			list = append(list, map[string]any{"hostPort": p.HostPort, "containerPort": p.Port, "protocol": p.Protocol, "hostIP": p.HostIP})
		}
		rt.CapabilityArgs["portMappings"] = list
	}
	if d := r.DNS; d != nil && len(d.Servers) > 0 && net.ParseIP(d.Servers[0]) != nil && a.can("dns") {
		rt.CapabilityArgs["dns"] = map[string]any{"servers": d.Servers, "searches": d.Search, "options": d.Options}
	}
	if len(a.Aliases) > 0 && a.can("aliases") {
		rt.CapabilityArgs["aliases"] = a.Aliases
	}
	return rt
}

// attach has the plugins attach the namespace and notes their answer.
func (r *Record) attach(ctx context.Context, a *Attachment) error {
	list, err := a.list()
	if err != nil {
		return failure(caisson.ErrUnsupported, fmt.Sprintf("network %q", a.Name), err)
	}
	limited, cancel := context.WithTimeout(ctx, r.Patience.Std())
	defer cancel()
	result, err := r.cni().AddNetworkList(limited, list, r.runtime(a, r.Path()))
	if err != nil {
		return r.said(ctx, a, err)
	}
	return a.note(result, r.Path())
}

// note keeps what people and other parts want to know of an answer.
func (a *Attachment) note(result types.Result, path string) error {
	res, err := types100.NewResultFromResult(result)
	if err != nil {
		return failure(caisson.ErrUnavailable, fmt.Sprintf("network %q", a.Name), fmt.Errorf("the plugin's answer: %w", err))
	}
	a.Addresses, a.MAC = nil, ""
	for _, i := range res.Interfaces {
		if i != nil && i.Sandbox != "" && i.Name == a.Interface {
			a.MAC = i.Mac
		}
	}
	for _, ip := range res.IPs {
		if ip == nil {
			continue
		}
		if n := ip.Interface; n != nil && (*n < 0 || *n >= len(res.Interfaces) || res.Interfaces[*n].Sandbox == "") {
			continue
		}
		a.Addresses = append(a.Addresses, ip.Address.String())
	}
	d := res.DNS
	if len(d.Nameservers)+len(d.Search)+len(d.Options) > 0 || d.Domain != "" {
		a.DNS = &caisson.DNS{Servers: d.Nameservers, Search: d.Search, Options: d.Options}
		if len(a.DNS.Search) == 0 && d.Domain != "" {
			a.DNS.Search = []string{d.Domain}
		}
		if err := CheckDNS(a.DNS); err != nil {
			a.DNS = nil // nothing that a resolv.conf could hold
		}
	}
	return nil
}

// detach has the plugins undo attach, also one that failed half way or that a
// crash has cut short. path is empty where the namespace is gone.
func (r *Record) detach(ctx context.Context, a *Attachment, path string) error {
	list, err := a.list()
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, r.Patience.Std())
	defer cancel()
	if err := r.cni().DelNetworkList(limited, list, r.runtime(a, path)); err != nil {
		return r.said(ctx, a, err)
	}
	return nil
}

// check has the plugins look whether all is as they made it.
func (r *Record) check(ctx context.Context, a *Attachment) error {
	list, err := a.list()
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, r.Patience.Std())
	defer cancel()
	err = r.cni().CheckNetworkList(limited, list, r.runtime(a, r.Path()))
	if errors.Is(err, libcni.ErrorCheckNotSupp) {
		return nil
	}
	if err != nil {
		return r.said(ctx, a, err)
	}
	return nil
}

// exhausted are the words by which plugins say that there are no more addresses.
var exhausted = []string{"no IP addresses available", "is not available in range set", "has been allocated to", "no more available"}

// said gives an error of a plugin its kind.
func (r *Record) said(ctx context.Context, a *Attachment, err error) error {
	item := fmt.Sprintf("network %q", a.Name)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, context.DeadlineExceeded):
		return failure(caisson.ErrUnavailable, item, fmt.Errorf("its plugin did not end within %v, see %s", r.Patience.Std().Round(time.Millisecond), a.File))
	}
	for _, words := range exhausted {
		if strings.Contains(err.Error(), words) {
			return failure(caisson.ErrExhausted, item, oneLine(err))
		}
	}
	return failure(caisson.ErrUnavailable, item, oneLine(err))
}

// oneLine joins the lines of an error, whoever wrote them.
func oneLine(err error) error {
	text := strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	if text == err.Error() {
		return err
	}
	return errors.New(text)
}

package config

import "github.com/caissonrun/caisson/internal/fields"

// Network is a section [network.NAME]: a network that tasks may name, of Caisson's
// own making. Those of CNI plugins have files of their own.
type Network struct {
	OpenVPN string `json:"openvpn"` // the configuration of a client
}

func networkSections() *fields.Type {
	name := &fields.Type{
		Form: fields.Text, Want: "a name of letters, digits, and . _ - that is no kind of network",
		Pattern: fields.Match(`[A-Za-z0-9][A-Za-z0-9_.-]{0,62}`), Deny: fields.Match(`none|default|host|allow`),
	}
	network := section("settings of a network",
		fields.Field{
			Name: "openvpn", Type: folder(), Required: true, Examples: []any{"/etc/openvpn/client/office.conf"},
			Doc: "The configuration of an OpenVPN client. Each sandbox on this network has a client of its own, through which all goes that leaves it; " +
				"while that is not connected nothing does. The server must take as many clients with this certificate as there are sandboxes (`duplicate-cn`).",
		},
	)
	return &fields.Type{Form: fields.Table, Key: name, Elem: network, Want: "a section for each network"}
}

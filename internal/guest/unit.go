//go:build unix

package guest

// ServicePath is where Unit has the agent's program.
const ServicePath = "/usr/lib/caisson/caisson-guest"

// Unit is a unit of systemd's that has the agent be a service of a machine with a
// system of its own. It is to be enabled: it begins with the system's other services,
// whose sockets are there by then, waits for a port that comes late, and goes on for as
// long as the machine does.
const Unit = `[Unit]
Description=Agent of Caisson, by which the host runs programs in this machine
DefaultDependencies=no
After=basic.target
Conflicts=shutdown.target
Before=shutdown.target

[Service]
ExecStart=` + ServicePath + ` service
Restart=always
RestartSec=1
KillMode=control-group
OOMScoreAdjust=-1000
TasksMax=infinity
LimitNOFILE=1048576
Delegate=yes

[Install]
WantedBy=multi-user.target
`

//go:build !linux

package network

import (
	"context"
	"errors"
	"net"
	"os"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/dhcp"
)

// errElsewhere is what everything answers here.
var errElsewhere = &caisson.Error{Op: caisson.OpCreate, Item: "network namespace", Kind: caisson.ErrUnsupported, Err: errors.New("only Linux has them")}

// Usable says that there are no namespaces here.
func Usable() error { return errElsewhere }

// Networks returns nothing.
func (o *Options) Networks() (names []string, broken []error) { return nil, nil }

// Publishes is false.
func (o *Options) Publishes(string) bool { return false }

// DefaultUsable says that there are no namespaces here.
func (o *Options) DefaultUsable(context.Context, bool) error { return errElsewhere }

func (o *Options) planDefault() (*Attachment, error) { return nil, errElsewhere }

func (o *Options) plan(*caisson.NetworkAttach, int) (*Attachment, error) { return nil, errElsewhere }

func (a *Attachment) can(string) bool { return false }

// Create is ErrUnsupported.
func (r *Record) Create(context.Context) error { return errElsewhere }

// Load is ErrUnsupported.
func (r *Record) Load() (*Record, error) { return nil, errElsewhere }

// Check is ErrUnsupported.
func (r *Record) Check(context.Context) error { return errElsewhere }

// Remove has nothing to do.
func (r *Record) Remove(context.Context) error { return nil }

// Sweep has nothing to do.
func (o *Options) Sweep(context.Context, []string) (removed []string, err error) { return nil, nil }

// Forget has nothing to do.
func (o *Options) Forget(context.Context, string) error { return nil }

// Dial is ErrUnsupported.
func Dial(context.Context, string, int) (net.Conn, error) { return nil, errElsewhere }

// TapsUsable says that there are no namespaces here.
func TapsUsable() error { return errElsewhere }

// MakeTaps is ErrUnsupported.
func (r *Record) MakeTaps(context.Context) ([]Link, error) { return nil, errElsewhere }

// OpenTap is ErrUnsupported.
func OpenTap(string, string) (*os.File, error) { return nil, errElsewhere }

// Lease has nothing to tell.
func (l *Link) Lease(*caisson.DNS) (*dhcp.Lease, bool) { return nil, false }

// OpenDHCP is ErrUnsupported.
func OpenDHCP(string, string) (*os.File, error) { return nil, errElsewhere }

// AnswerDHCP has nothing to do.
func AnswerDHCP(*os.File, *dhcp.Lease) {}

// VPNUsable says that there are no namespaces here.
func VPNUsable() error { return errElsewhere }

func checkVPNFile(string, string) error { return errElsewhere }

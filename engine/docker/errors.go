package docker

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/caissonrun/caisson"
)

// kinds sorts what a daemon answers, first by the class that its status has,
// then by words of its text: many failures of a container's start are all
// internal errors to it.
var kinds = []struct {
	is   func(error) bool
	text string
	kind caisson.Kind
}{
	{text: "address already in use", kind: caisson.ErrExists},
	{text: "port is already allocated", kind: caisson.ErrExists},
	{text: "no space left on device", kind: caisson.ErrExhausted},
	{text: "cannot allocate memory", kind: caisson.ErrExhausted},
	{text: "could not find an available", kind: caisson.ErrExhausted},
	{text: "could not select device driver", kind: caisson.ErrUnsupported},
	{text: "--storage-opt is supported only", kind: caisson.ErrUnsupported},
	{text: "exec format error", kind: caisson.ErrUnsupported},
	{text: "is too old", kind: caisson.ErrUnsupported},
	{text: "toomanyrequests", kind: caisson.ErrUnavailable},
	{text: "bind source path does not exist", kind: caisson.ErrNotFound},
	{text: "manifest unknown", kind: caisson.ErrNotFound},
	{text: "network not found", kind: caisson.ErrNotFound},
	{text: "unknown user error", kind: caisson.ErrInvalid},
	{text: "does not match any of the supported image formats", kind: caisson.ErrInvalid},
	{text: "name unknown", kind: caisson.ErrNotFound},
	{text: "no matching manifest", kind: caisson.ErrNotFound},
	{text: "unauthorized", kind: caisson.ErrDenied},
	{text: "access denied", kind: caisson.ErrDenied},
	{text: "no basic auth credentials", kind: caisson.ErrDenied},
	{text: "authentication required", kind: caisson.ErrDenied},
	{text: "connection refused", kind: caisson.ErrUnavailable},
	{text: "i/o timeout", kind: caisson.ErrUnavailable},
	{text: "no such host", kind: caisson.ErrUnavailable},
	{text: "tls handshake timeout", kind: caisson.ErrUnavailable},
	{text: "gave http response to https client", kind: caisson.ErrUnavailable},
	{text: "unexpected eof", kind: caisson.ErrUnavailable},
	{is: client.IsErrConnectionFailed, kind: caisson.ErrUnavailable},
	{is: errdefs.IsNotFound, kind: caisson.ErrNotFound},
	{is: errdefs.IsConflict, kind: caisson.ErrExists},
	{is: errdefs.IsPermissionDenied, kind: caisson.ErrDenied},
	{is: errdefs.IsUnauthorized, kind: caisson.ErrDenied},
	{is: errdefs.IsInvalidArgument, kind: caisson.ErrInvalid},
	{is: errdefs.IsUnavailable, kind: caisson.ErrUnavailable},
	{is: errdefs.IsNotImplemented, kind: caisson.ErrUnsupported},
	{is: errdefs.IsInternal, kind: caisson.ErrUnavailable},
}

// maxText bounds what is passed on of a daemon's answer.
const maxText = 500

// sorted gives a daemon's error its kind. Errors of the caller's context stay.
func sorted(ctx context.Context, item string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(context.Cause(ctx), errSlow) {
		return &caisson.Error{Item: item, Kind: caisson.ErrUnavailable, Err: errSlow}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", item, ctx.Err())
	}
	return &caisson.Error{Item: item, Kind: kindOf(err), Err: said(err)}
}

// kindOf finds the kind.
func kindOf(err error) caisson.Kind {
	if kind := caisson.KindOf(err); kind != caisson.ErrUnknown {
		return kind
	}
	text := strings.ToLower(err.Error())
	for _, k := range kinds {
		if k.is != nil && k.is(err) || k.text != "" && strings.Contains(text, k.text) {
			return k.kind
		}
	}
	return caisson.ErrUnavailable
}

// said is a daemon's text on one line, and not too long.
func said(err error) error {
	text := strings.Join(strings.Fields(err.Error()), " ")
	text = strings.TrimPrefix(text, "Error response from daemon: ")
	if len(text) > maxText {
		text = text[:maxText] + "..."
	}
	return errors.New(strings.ToValidUTF8(text, "?"))
}

func notFound(err error) bool { return errors.Is(err, caisson.ErrNotFound) || errdefs.IsNotFound(err) }

func exists(err error) bool { return errors.Is(err, caisson.ErrExists) || errdefs.IsConflict(err) }

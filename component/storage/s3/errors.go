//go:build unix

package s3

import (
	"context"
	"errors"
	"net/http"

	"github.com/caissonrun/caisson"
	"github.com/minio/minio-go/v7"
)

// codes sorts what servers say, by their codes.
var codes = map[string]caisson.Kind{
	"NoSuchKey":                      caisson.ErrNotFound,
	"NoSuchBucket":                   caisson.ErrInvalid, // no table is what is not there
	"NoSuchUpload":                   caisson.ErrUnavailable,
	"AccessDenied":                   caisson.ErrDenied,
	"InvalidAccessKeyId":             caisson.ErrDenied,
	"SignatureDoesNotMatch":          caisson.ErrDenied,
	"ExpiredToken":                   caisson.ErrDenied,
	"InvalidToken":                   caisson.ErrDenied,
	"RequestTimeTooSkewed":           caisson.ErrDenied,
	"PreconditionFailed":             caisson.ErrExists,
	"ConditionalRequestConflict":     caisson.ErrExists,
	"NotImplemented":                 caisson.ErrUnsupported,
	"EntityTooLarge":                 caisson.ErrInvalid,
	"KeyTooLongError":                caisson.ErrInvalid,
	"InvalidBucketName":              caisson.ErrInvalid,
	"AuthorizationHeaderMalformed":   caisson.ErrInvalid, // mostly another region
	"PermanentRedirect":              caisson.ErrInvalid,
	"QuotaExceeded":                  caisson.ErrExhausted,
	"XMinioStorageFull":              caisson.ErrExhausted,
	"XMinioAdminBucketQuotaExceeded": caisson.ErrExhausted,
	"SlowDown":                       caisson.ErrUnavailable,
	"ServiceUnavailable":             caisson.ErrUnavailable,
	"InternalError":                  caisson.ErrUnavailable,
	"RequestTimeout":                 caisson.ErrUnavailable,
	"BadDigest":                      caisson.ErrUnavailable,
}

// statuses sorts answers without a code that is known.
var statuses = map[int]caisson.Kind{
	http.StatusNotFound:            caisson.ErrNotFound,
	http.StatusForbidden:           caisson.ErrDenied,
	http.StatusUnauthorized:        caisson.ErrDenied,
	http.StatusPreconditionFailed:  caisson.ErrExists,
	http.StatusConflict:            caisson.ErrExists,
	http.StatusNotImplemented:      caisson.ErrUnsupported,
	http.StatusInsufficientStorage: caisson.ErrExhausted,
	http.StatusTooManyRequests:     caisson.ErrUnavailable,
}

// wrap gives an error its kind.
func (s *store) wrap(key string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var sorted *caisson.Error
	if errors.As(err, &sorted) {
		return err
	}
	return &caisson.Error{Item: s.Name() + "/" + key, Kind: kind(err), Err: err}
}

// kind sorts an error. What is no answer of a server is the way to it.
func kind(err error) caisson.Kind {
	var answer minio.ErrorResponse
	if !errors.As(err, &answer) {
		return caisson.ErrUnavailable
	}
	if k, ok := codes[answer.Code]; ok {
		return k
	}
	if k, ok := statuses[answer.StatusCode]; ok {
		return k
	}
	if answer.StatusCode >= 500 {
		return caisson.ErrUnavailable
	}
	return caisson.ErrUnknown
}

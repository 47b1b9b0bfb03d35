package gateway

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/caissonrun/caisson"
)

// Certificates begin before now, for clocks that are behind, and outlive any
// task.
const (
	certificateEarly = 24 * time.Hour
	certificateLife  = 10 * 365 * 24 * time.Hour
)

// An Authority makes the certificates of brokered hosts for one task. Only that
// task trusts it, and it can speak for no other host.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes an authority for the hosts of brokered secrets, as they
// stand in Brokered.Host. Errors: ErrInvalid for what is no host.
func NewAuthority(hosts []string) (*Authority, error) {
	template := &x509.Certificate{
		Subject:                     pkix.Name{CommonName: "Caisson gateway of one task"},
		IsCA:                        true,
		BasicConstraintsValid:       true,
		MaxPathLenZero:              true,
		KeyUsage:                    x509.KeyUsageCertSign,
		PermittedDNSDomainsCritical: true,
	}
	if err := constrain(template, hosts); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	cert, err := sign(template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &Authority{cert: cert, key: key}, nil
}

// constrain names the hosts that the authority may speak for. Of the kind that
// none of them is, names or addresses, it may speak for none.
func constrain(template *x509.Certificate, hosts []string) error {
	for _, h := range hosts {
		b, err := parseBrokered(h)
		switch {
		case err != nil:
			return err
		case b.addr.IsValid():
			bits := b.addr.BitLen()
			template.PermittedIPRanges = append(template.PermittedIPRanges,
				&net.IPNet{IP: b.addr.AsSlice(), Mask: net.CIDRMask(bits, bits)})
		default:
			template.PermittedDNSDomains = append(template.PermittedDNSDomains, b.name)
		}
	}
	if len(template.PermittedIPRanges) == 0 {
		template.ExcludedIPRanges = []*net.IPNet{
			{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, {IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
		}
	}
	if len(template.PermittedDNSDomains) == 0 {
		// Under this name there is nothing (RFC 6761).
		template.PermittedDNSDomains = []string{"invalid"}
	}
	return nil
}

// sign makes a certificate, filling in its number and its times.
func sign(template, parent *x509.Certificate, public *ecdsa.PublicKey, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	number := make([]byte, 16)
	rand.Read(number)
	number[0] &= 0x7f
	template.SerialNumber = new(big.Int).SetBytes(number)
	now := time.Now()
	template.NotBefore, template.NotAfter = now.Add(-certificateEarly), now.Add(certificateLife)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// The types of PEM blocks.
const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY"
)

// PEM returns certificate and key, for a file that only the caller can read, so
// that another process can go on with the same authority.
func (a *Authority) PEM() []byte {
	key, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		panic("caisson: bug: an authority has a key of a type that can't be written")
	}
	return append(a.Certificate(), pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: key})...)
}

// ParseAuthority reads what PEM returned. Errors: ErrInvalid.
func ParseAuthority(text []byte) (*Authority, error) {
	pair, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, &caisson.Error{Item: "certificate of the gateway", Kind: caisson.ErrInvalid, Err: err}
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA {
		return nil, &caisson.Error{Item: "certificate of the gateway", Kind: caisson.ErrInvalid, Err: errors.New("not one of Caisson's")}
	}
	return &Authority{cert: pair.Leaf, key: key}, nil
}

// Certificate returns the authority's certificate in PEM.
func (a *Authority) Certificate() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: a.cert.Raw})
}

// Bundle returns the certificates in base (a PEM bundle) and the authority's:
// what a program inside is to trust.
func (a *Authority) Bundle(base []byte) []byte {
	base = bytes.TrimRight(base, "\r\n")
	if len(base) > 0 {
		base = append(bytes.Clone(base), '\n')
	}
	return append(base, a.Certificate()...)
}

// leaf makes the certificate of one host.
func (a *Authority) leaf(name string, addr netip.Addr) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "Caisson gateway"},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if addr.IsValid() {
		template.IPAddresses = []net.IP{addr.AsSlice()}
	} else {
		template.DNSNames = []string{name}
	}
	cert, err := sign(template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{cert.Raw, a.cert.Raw}, PrivateKey: key, Leaf: cert}, nil
}

// TrustVariables are what names the file of the bundle to programs: those of
// OpenSSL and Go, curl, git, Python's requests, and Node.
func TrustVariables() []string {
	return []string{"SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"}
}

// maxRoots bounds a bundle of certificates: usual ones have 250 KiB.
const maxRoots = 16 << 20

// HostRoots returns the bundle of certificates that programs of this host trust,
// to be the base of Bundle where the sandbox has none of its own. It is empty if
// the host has none.
func HostRoots() ([]byte, error) {
	places := []string{
		"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
	}
	for _, name := range places {
		info, err := os.Stat(name)
		if err != nil {
			continue
		}
		if info.Size() > maxRoots {
			return nil, fmt.Errorf("%s: larger than %d bytes", name, maxRoots)
		}
		return os.ReadFile(name)
	}
	return nil, nil
}

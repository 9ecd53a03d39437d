package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// lifetime is far longer than a cluster of this package lives.
const lifetime = 30 * 24 * time.Hour

// keyPair is a certificate and its key, in PEM.
type keyPair struct{ cert, key []byte }

// authority signs every certificate of one cluster.
type authority struct {
	keyPair
	parent *x509.Certificate
	signer *ecdsa.PrivateKey
}

func newAuthority() (*authority, error) {
	template := certTemplate(pkix.Name{CommonName: "sidecar-cluster"}, nil)
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage |= x509.KeyUsageCertSign
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	pair, err := sign(template, template, signer, signer)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(pair.cert)
	parent, err := x509.ParseCertificate(block.Bytes)
	return &authority{pair, parent, signer}, err
}

// issue makes a certificate that is good for a client and for a server.
func (a *authority) issue(name pkix.Name, hosts ...string) (keyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return keyPair{}, err
	}
	return sign(certTemplate(name, hosts), a.parent, key, a.signer)
}

func certTemplate(name pkix.Name, hosts []string) *x509.Certificate {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      name,
		// An hour back, for clocks that differ.
		NotBefore:   time.Now().Add(-time.Hour),
		NotAfter:    time.Now().Add(lifetime),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return template
}

func sign(template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) (keyPair, error) {
	cert, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return keyPair{}, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return keyPair{}, err
	}
	return keyPair{
		cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
		key:  pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}),
	}, nil
}

// pki is the folder with the certificates of one cluster.
type pki struct {
	dir    string
	ca     *authority
	server string
}

// newPKI writes what the control plane needs. server is the URL of the API
// server, hosts are the names that its certificate is good for.
func newPKI(dir, server string, hosts ...string) (*pki, error) {
	ca, err := newAuthority()
	if err != nil {
		return nil, err
	}
	p := &pki{dir: dir, ca: ca, server: server}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := p.write("ca", ca.keyPair); err != nil {
		return nil, err
	}
	for _, cert := range []struct {
		file  string
		name  pkix.Name
		hosts []string
	}{
		{"apiserver", pkix.Name{CommonName: "kube-apiserver"}, hosts},
		{"apiserver-kubelet-client", pkix.Name{CommonName: "kube-apiserver-kubelet-client", Organization: []string{"system:masters"}}, nil},
		{"service-account", pkix.Name{CommonName: "service-account"}, nil},
	} {
		if err := p.issue(cert.file, cert.name, cert.hosts...); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *pki) cert(name string) string { return filepath.Join(p.dir, name+".crt") }
func (p *pki) key(name string) string  { return filepath.Join(p.dir, name+".key") }

func (p *pki) write(name string, pair keyPair) error {
	if err := os.WriteFile(p.cert(name), pair.cert, 0o600); err != nil {
		return err
	}
	return os.WriteFile(p.key(name), pair.key, 0o600)
}

func (p *pki) issue(file string, name pkix.Name, hosts ...string) error {
	pair, err := p.ca.issue(name, hosts...)
	if err != nil {
		return fmt.Errorf("issue the certificate %s: %w", file, err)
	}
	return p.write(file, pair)
}

// kubeconfig writes a kubeconfig for this user. Nothing
// in it refers to another file, so that it can be copied.
func (p *pki) kubeconfig(path, user string, groups ...string) error {
	pair, err := p.ca.issue(pkix.Name{CommonName: user, Organization: groups})
	if err != nil {
		return fmt.Errorf("issue a certificate for %s: %w", user, err)
	}
	const name = "sidecar-cluster"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: p.server, CertificateAuthorityData: p.ca.cert}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificateData: pair.cert, ClientKeyData: pair.key}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	config.CurrentContext = name
	return clientcmd.WriteToFile(*config, path)
}

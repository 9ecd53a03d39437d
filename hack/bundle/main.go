// Command bundle makes the OLM bundle of the operator from its manifests, and catalogs of bundles. `make bundle`,
// `make catalog` and `make pin` run it.
//
//	kustomize build config/manifests | bundle generate -dir . -icon config/manifests/icon.svg
//	bundle validate bundle
//	bundle pin config/manager/kustomization.yaml ghcr.io/example/operator:v1.2.3@sha256:...
//	bundle catalog -out bin/catalog -images 'ghcr.io/example/{{.Package}}-bundle:v{{.Version}}' bundle
//
// It has a module of its own, since OLM's libraries have many dependencies and hold back the versions of others.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/sirupsen/logrus"
)

func main() {
	// OLM's libraries tell about every optional file that a bundle does not have.
	logrus.SetLevel(logrus.WarnLevel)
	if err := run(os.Args[1:], os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "bundle:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage: bundle generate | validate | catalog | pin; -h after one of them lists its flags")

func run(args []string, stdin io.Reader) error {
	if len(args) == 0 {
		return errUsage
	}
	switch command, args := args[0], args[1:]; command {
	case "generate":
		return runGenerate(args, stdin)
	case "validate":
		return runValidate(args)
	case "catalog":
		return runCatalog(args)
	case "pin":
		return runPin(args)
	default:
		return errUsage
	}
}

func runGenerate(args []string, stdin io.Reader) error {
	flags := flag.NewFlagSet("generate", flag.ContinueOnError)
	dir := flags.String("dir", ".", "Where bundle/ and bundle.Dockerfile are written.")
	icon := flags.String("icon", "", "The SVG file that consoles show.")
	if err := flags.Parse(args); err != nil {
		return err
	}
	svg, err := os.ReadFile(*icon)
	if err != nil {
		return fmt.Errorf("read the icon: %w", err)
	}
	parts, err := read(stdin)
	if err != nil {
		return fmt.Errorf("read the manifests: %w", err)
	}
	b, err := generate(parts, svg)
	if err != nil {
		return err
	}
	return b.write(*dir)
}

func runValidate(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: bundle validate <folder of the bundle>")
	}
	return validate(args[0])
}

func runPin(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: bundle pin <kustomization> <image with version and digest>")
	}
	return pin(args[0], args[1])
}

func runCatalog(args []string) error {
	flags := flag.NewFlagSet("catalog", flag.ContinueOnError)
	out := flags.String("out", "", "The folder of the catalog, which is replaced. Its Dockerfile is written beside it.")
	images := flags.String("images", "", "A template of the reference by which each bundle's image is pulled; it knows .Package and .Version.")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *out == "" || *images == "" || flags.NArg() == 0 {
		return errors.New("usage: bundle catalog -out <folder> -images <template> <folders of bundles>")
	}
	return catalog(*out, *images, flags.Args())
}

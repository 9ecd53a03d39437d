package analysis

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Validate finds what is wrong with a query before it is asked, all of it at once. Each error
// names the field and says what to write instead.
func Validate(q Query) error {
	return errors.Join(
		validateName(q.Name),
		validateAddress(q.Prometheus.Address),
		validateQuery(q.Prometheus.Query),
		validateConditions(q),
		validateTimes(q),
		validateCounts(q),
	)
}

func validateName(name string) error {
	if name == "" {
		return errors.New("name: required: write what is measured, like errors")
	}
	return nil
}

func validateAddress(address string) error {
	const want = "write an address like http://prometheus.monitoring.svc:9090"
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return fmt.Errorf("prometheus.address: %w: %s", err, want)
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return fmt.Errorf("prometheus.address: %q is no URL of a server: %s", address, want)
	case u.User != nil:
		return errors.New("prometheus.address: everybody who reads the policy would read the password: remove what stands before the @")
	case u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("prometheus.address: %s, without ? and #; what is asked belongs in prometheus.query", want)
	}
	return nil
}

func validateQuery(text string) error {
	if strings.TrimSpace(text) == "" {
		return errors.New("prometheus.query: required: write a query in PromQL")
	}
	query, err := render(text, Vars{Policy: "policy", Revision: "policy-0123456789", Step: "step", Namespaces: []string{"namespace"}})
	if err == nil {
		err = checkSyntax(query)
	}
	if err != nil {
		return fmt.Errorf("prometheus.query: %w", err)
	}
	return nil
}

func validateTimes(q Query) error {
	var errs []error
	if q.InitialDelay < 0 {
		errs = append(errs, fmt.Errorf("initialDelay: %s is negative: write 0s or more", q.InitialDelay))
	}
	if q.Interval != 0 && q.Interval < MinInterval {
		errs = append(errs, fmt.Errorf("interval: %s is too short: write %s or more", q.Interval, MinInterval))
	}
	if q.Timeout != 0 && (q.Timeout < MinTimeout || q.Timeout > MaxTimeout) {
		errs = append(errs, fmt.Errorf("timeout: %s is out of bounds: write from %s to %s", q.Timeout, MinTimeout, MaxTimeout))
	}
	return errors.Join(errs...)
}

func validateCounts(q Query) error {
	var errs []error
	if q.Count < 0 {
		errs = append(errs, fmt.Errorf("count: %d is negative: write how many successful measurements are needed, or 0 to measure as long as the step soaks", q.Count))
	}
	if q.FailureLimit < 0 {
		errs = append(errs, fmt.Errorf("failureLimit: %d is negative: write how many failed measurements are tolerated, 0 for none", q.FailureLimit))
	}
	if q.InconclusiveLimit != nil && *q.InconclusiveLimit < 0 {
		errs = append(errs, fmt.Errorf("inconclusiveLimit: %d is negative: write how many inconclusive measurements in a row are tolerated, or leave it out to wait as long as it takes", *q.InconclusiveLimit))
	}
	return errors.Join(errs...)
}

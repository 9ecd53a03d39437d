package sizing

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/ext"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// costLimit bounds one evaluation. What makes sense here costs less than 100.
const costLimit = 10_000

// maxRemembered is how many compiled expressions are kept: those of all policies of a cluster, by far.
const maxRemembered = 1000

const hint = `the variables are app.requests and app.limits, numbers are written with a point (app.requests.cpu * 0.1), quantity("64Mi") is a number too`

// Validate says what is wrong with an expression before there is an app.
func Validate(expression string) error {
	_, err := programs.of(expression)
	return err
}

// Evaluate computes a resource, rounded up. The error says why it can't be for this app.
func Evaluate(expression string, name corev1.ResourceName, app App) (resource.Quantity, error) {
	program, err := programs.of(expression)
	if err != nil {
		return resource.Quantity{}, err
	}
	out, _, err := program.Eval(map[string]any{"app.requests": app.Requests, "app.limits": app.Limits})
	if err != nil {
		return resource.Quantity{}, explain(err)
	}
	switch value := out.(type) {
	case types.Double:
		return quantityOf(name, float64(value))
	case types.Int:
		return quantityOf(name, float64(value))
	}
	return resource.Quantity{}, fmt.Errorf("gives a %s, not a number", out.Type().TypeName())
}

// explain says what the author of the expression can do about an app that it does not fit.
func explain(err error) error {
	if _, key, missing := strings.Cut(err.Error(), "no such key: "); missing {
		return fmt.Errorf("the app says nothing of %s there: to allow that, ask first, like has(app.limits.%[1]s) ? app.limits.%[1]s : 0.0", key)
	}
	return err
}

// quantityOf rounds up, except for what the arithmetic of floating point adds: 0.3 * 0.1 cores are 30m.
func quantityOf(name corev1.ResourceName, number float64) (resource.Quantity, error) {
	scale := 1.0
	if name == corev1.ResourceCPU {
		scale = 1000
	}
	units := math.Ceil(number * scale * (1 - 1e-12))
	switch {
	case math.IsNaN(units) || math.IsInf(units, 0) || units > 1<<60:
		return resource.Quantity{}, fmt.Errorf("gives %v, which is no amount", number)
	case number < 0:
		return resource.Quantity{}, fmt.Errorf("gives %v, which is less than nothing", number)
	case name == corev1.ResourceCPU:
		return *resource.NewMilliQuantity(int64(units), resource.DecimalSI), nil
	}
	return *resource.NewQuantity(int64(units), resource.BinarySI), nil
}

// programs remembers what was compiled, which takes a hundred times as long as evaluating it: every
// pod is asked for the same few expressions.
var programs memory

type memory struct {
	mu       sync.Mutex
	compiled map[string]compiled
}

type compiled struct {
	program cel.Program
	err     error
}

func (m *memory) of(expression string) (cel.Program, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, known := m.compiled[expression]
	if !known {
		c.program, c.err = compile(expression)
		if m.compiled == nil || len(m.compiled) >= maxRemembered {
			m.compiled = map[string]compiled{}
		}
		m.compiled[expression] = c
	}
	return c.program, c.err
}

func compile(expression string) (cel.Program, error) {
	env, err := environment()
	if err != nil {
		return nil, err
	}
	ast, issues := env.Compile(expression)
	if first := issues.Errors(); len(first) > 0 {
		return nil, fmt.Errorf("%s (column %d); %s", first[0].Message, first[0].Location.Column()+1, hint)
	}
	if out := ast.OutputType(); !out.IsExactType(cel.DoubleType) && !out.IsExactType(cel.IntType) && !out.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("is of type %s, not a number; %s", out, hint)
	}
	return env.Program(ast, cel.CostLimit(costLimit))
}

// environment is made once. It has no functions of time or of chance: the same pod gets the same sidecars.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	numbers := cel.MapType(cel.StringType, cel.DoubleType)
	return cel.NewEnv(
		cel.Variable("app.requests", numbers),
		cel.Variable("app.limits", numbers),
		cel.CrossTypeNumericComparisons(true),
		ext.Math(),
		cel.Function("quantity", cel.Overload("quantity_string", []*cel.Type{cel.StringType}, cel.DoubleType, cel.UnaryBinding(parse))),
	)
})

// parse is the function quantity("64Mi").
func parse(text ref.Val) ref.Val {
	s, ok := text.Value().(string)
	if !ok {
		return types.MaybeNoSuchOverloadErr(text)
	}
	q, err := resource.ParseQuantity(s)
	if err != nil {
		return types.WrapErr(errors.New(`"` + s + `" is no quantity: write one like "64Mi" or "100m"`))
	}
	return types.Double(q.AsApproximateFloat64())
}

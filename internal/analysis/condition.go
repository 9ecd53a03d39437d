package analysis

import (
	"errors"
	"fmt"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
)

// costLimit bounds one evaluation: all() over the largest answer that is judged costs less. It
// is low because the time that CEL takes to count the cost grows with its square.
const costLimit = 50_000

// shape is the type that result has in the conditions. It follows from the answer.
type shape string

const (
	listShape   shape = "a list of doubles" // of a vector
	numberShape shape = "one double"        // of a scalar
)

const conditionHint = "result is a list of doubles for a vector (result[0] < 0.01, result.all(x, x < 0.01)) " +
	"and one double for a scalar (result < 0.01); write numbers with a point: 100.0"

// conditions are a query's, compiled for one shape of result.
type conditions struct {
	success, failure cel.Program // failure is nil where there is none
}

func compileConditions(q Query, s shape) (c conditions, err error) {
	env, err := conditionEnv(s)
	if err != nil {
		return c, err
	}
	if c.success, err = compile(env, q.SuccessCondition); err != nil {
		return c, fmt.Errorf("successCondition: %w", err)
	}
	if q.FailureCondition == "" {
		return c, nil
	}
	if c.failure, err = compile(env, q.FailureCondition); err != nil {
		return c, fmt.Errorf("failureCondition: %w", err)
	}
	return c, nil
}

func conditionEnv(s shape) (*cel.Env, error) {
	resultType := cel.DoubleType
	if s == listShape {
		resultType = cel.ListType(cel.DoubleType)
	}
	return cel.NewEnv(cel.Variable("result", resultType), cel.CrossTypeNumericComparisons(true))
}

func compile(env *cel.Env, condition string) (cel.Program, error) {
	ast, issues := env.Compile(condition)
	if first := issues.Errors(); len(first) > 0 {
		return nil, fmt.Errorf("%s (column %d)", first[0].Message, first[0].Location.Column()+1)
	}
	if ast.OutputType() != cel.BoolType {
		return nil, fmt.Errorf("is of type %s: write a comparison, which is true or false", ast.OutputType())
	}
	return env.Program(ast, cel.CostLimit(costLimit))
}

// judge says what the conditions make of a result. The failure condition is asked first: what
// its author calls a failure is one, also when the success condition is true or can't be evaluated.
func (c conditions) judge(q Query, result any) (Result, string) {
	if c.failure != nil {
		failed, err := evaluate(c.failure, result)
		switch {
		case err != nil:
			return ResultInconclusive, fmt.Sprintf("failureCondition %s: %v", q.FailureCondition, err)
		case failed:
			return ResultFailed, fmt.Sprintf("failureCondition %s is true", q.FailureCondition)
		}
	}
	succeeded, err := evaluate(c.success, result)
	switch {
	case err != nil:
		return ResultInconclusive, fmt.Sprintf("successCondition %s: %v", q.SuccessCondition, err)
	case succeeded:
		return ResultSuccessful, fmt.Sprintf("successCondition %s is true", q.SuccessCondition)
	case c.failure != nil:
		return ResultInconclusive, "neither successCondition nor failureCondition is true"
	}
	return ResultFailed, fmt.Sprintf("successCondition %s is false", q.SuccessCondition)
}

func evaluate(program cel.Program, result any) (bool, error) {
	out, _, err := program.Eval(map[string]any{"result": result})
	if err != nil {
		return false, err
	}
	return out == types.True, nil
}

// validateConditions wants both conditions to make sense of the same shape of result.
func validateConditions(q Query) error {
	if q.SuccessCondition == "" {
		return errors.New("successCondition: required: write when a measurement is successful, like result[0] < 0.01")
	}
	var refusals []error
	for _, s := range []shape{listShape, numberShape} {
		_, err := compileConditions(q, s)
		if err == nil {
			return nil
		}
		refusals = append(refusals, err)
	}
	return fmt.Errorf("%w; %s", refusals[0], conditionHint)
}

// explainShape says what to write where the conditions don't fit the answer.
func explainShape(q Query, got shape, refusal error) string {
	other, advice := numberShape, "write result[0] or result.all(x, ...) for result, or put scalar() around the query"
	if got == numberShape {
		other, advice = listShape, "write result for result[0], or take away the scalar() around the query"
	}
	if _, err := compileConditions(q, other); err != nil {
		return refusal.Error()
	}
	return fmt.Sprintf("result is %s here: %s", got, advice)
}

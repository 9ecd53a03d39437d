package analysis

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
)

type judged struct {
	Result         Result
	Value, Message string
}

func TestJudgeAnswer(t *testing.T) {
	const below, above = "result[0] < 0.01", "result[0] > 0.1"
	for _, tc := range []struct {
		name             string
		success, failure string
		answer           model.Value
		want             judged
	}{
		{"success", below, "", vector(0.002), judged{ResultSuccessful, "[0.002]", "successCondition result[0] < 0.01 is true of [0.002]"}},
		{"no success is failure", below, "", vector(0.05), judged{ResultFailed, "[0.05]", "successCondition result[0] < 0.01 is false of [0.05]"}},
		{"failure", below, above, vector(0.5), judged{ResultFailed, "[0.5]", "failureCondition result[0] > 0.1 is true of [0.5]"}},
		{"neither", below, above, vector(0.05), judged{ResultInconclusive, "[0.05]", "neither successCondition nor failureCondition is true of [0.05]"}},
		{"both is failure", "true", above, vector(0.5), judged{ResultFailed, "[0.5]", "failureCondition result[0] > 0.1 is true of [0.5]"}},
		{"a failure whose success can't be evaluated", "result[1] < 0.1", above, vector(0.5),
			judged{ResultFailed, "[0.5]", "failureCondition result[0] > 0.1 is true of [0.5]"}},
		{"a success whose failure can't be evaluated", below, "result[1] > 0.1", vector(0),
			judged{ResultInconclusive, "[0]", "failureCondition result[1] > 0.1: index out of bounds: 1 of [0]"}},
		{"success that can't be evaluated", "result[3] < 0.1", "", vector(0),
			judged{ResultInconclusive, "[0]", "successCondition result[3] < 0.1: index out of bounds: 3 of [0]"}},
		{"all of many", "result.all(x, x < 3)", "", vector(0, 1, 2), judged{ResultSuccessful, "[0, 1, 2]", "successCondition result.all(x, x < 3) is true of [0, 1, 2]"}},
		{"not all of many", "result.all(x, x < 3)", "", vector(9, 1, 2, 3, 4, 5, 6),
			judged{ResultFailed, "[9, 1, 2, 3, 4, and 2 more]", "successCondition result.all(x, x < 3) is false of [9, 1, 2, 3, 4, and 2 more]"}},
		{"a scalar", "result < 0.01", "", scalar(0.002), judged{ResultSuccessful, "0.002", "successCondition result < 0.01 is true of 0.002"}},
		{"a whole number in a condition", "result <= 1", "", scalar(1), judged{ResultSuccessful, "1", "successCondition result <= 1 is true of 1"}},
		{"a failed scalar", "result < 0.01", "", scalar(math.Inf(1)), judged{ResultFailed, "+Inf", "successCondition result < 0.01 is false of +Inf"}},
		{"a vector where a scalar is expected", "result < 0.01", "", vector(0),
			judged{ResultInconclusive, "[0]", "result is a list of doubles here: write result[0] or result.all(x, ...) for result, or put scalar() around the query"}},
		{"a scalar where a vector is expected", below, "", scalar(0),
			judged{ResultInconclusive, "0", "result is one double here: write result for result[0], or take away the scalar() around the query"}},
		{"empty", below, "", vector(), judged{ResultInconclusive, "",
			"the answer is empty: no series matches, or none has a value now; where that means 0, write 'or vector(0)' after the query"}},
		{"NaN", below, "", vector(math.NaN()), judged{ResultInconclusive, "[NaN]", "the answer has a NaN, as 0/0 gives: there is nothing to judge yet"}},
		{"NaN among others, that all() might pass over", "!result.all(x, x > 1)", "", vector(0, math.NaN()),
			judged{ResultInconclusive, "[0, NaN]", "the answer has a NaN, as 0/0 gives: there is nothing to judge yet"}},
		{"a scalar NaN", "true", "", scalar(math.NaN()), judged{ResultInconclusive, "NaN", "the answer has a NaN, as 0/0 gives: there is nothing to judge yet"}},
		{"a histogram", below, "", model.Vector{{Histogram: &model.SampleHistogram{}}},
			judged{ResultInconclusive, "", "a histogram is no number: put histogram_quantile() or another function around the query"}},
		{"a range", below, "", model.Matrix{},
			judged{ResultInconclusive, "", "the query gives values over time: put rate(), avg_over_time() or another function around its range"}},
		{"a string", below, "", &model.String{}, judged{ResultInconclusive, "", "the query gives neither a vector nor a scalar, so there are no numbers to judge"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got judged
			got.Result, got.Value, got.Message = judge(errorsQuery(judgedBy(tc.success, tc.failure)), tc.answer)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("judge() (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTheLargestAnswerCanBeJudgedAndNoCostlyCondition(t *testing.T) {
	largest := vector(make([]float64, maxNumbers)...)
	if result, _, message := judge(errorsQuery(judgedBy("result.all(x, x >= 0.0 && x * 100.0 < 1.0)", "")), largest); result != ResultSuccessful {
		t.Errorf("all() over %d values: %s", len(largest), message)
	}
	result, _, message := judge(errorsQuery(judgedBy("result.all(x, result.all(y, x <= y))", "")), largest)
	if result != ResultInconclusive || !strings.Contains(message, "cost limit exceeded") {
		t.Errorf("all() in all() over %d values is %s: %s", len(largest), result, message)
	}
	result, _, message = judge(errorsQuery(), append(largest, largest[0]))
	if result != ResultInconclusive || !strings.Contains(message, "more than 1000: put sum(), topk()") {
		t.Errorf("%d values are %s: %s", len(largest)+1, result, message)
	}
}

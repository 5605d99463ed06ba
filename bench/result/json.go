package result

import (
	"encoding/json"
	"io"
)

// JSON writes all of the result, for another program.
func (r *Result) JSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

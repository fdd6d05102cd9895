package conf

import (
	"io/fs"
	"strings"
	"testing"
)

// Root may read every file, so that no test can make one it may not read.
func TestAFileNobodyMayReadIsExplained(t *testing.T) {
	t.Parallel()
	err := describe(&fs.PathError{Op: "open", Path: "hunter2", Err: fs.ErrPermission})
	if text := err.Error(); !strings.HasPrefix(text, "this user may not read the file") || strings.Contains(text, "hunter2") {
		t.Errorf("error %q", text)
	}
}

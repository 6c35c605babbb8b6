package build

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	MaybeChild()
	if os.Getenv(helperVariable) != "" {
		helper()
		return
	}
	os.Exit(m.Run())
}

package kept

import (
	"strings"
	"testing"
)

func TestVerify(t *testing.T) {
	outside := map[string]string{"mnt": "mnt:[1]", "net": "net:[2]"}
	const good = "Name:\tsh\r\nCapInh:\t0000000000000000\r\nCapPrm:\t0000000000000000\r\nCapEff:\t0000000000000000\r\n" +
		"CapBnd:\t0000000000000000\r\nCapAmb:\t0000000000000000\r\nNoNewPrivs:\t1\r\nSeccomp:\t2\r\nns mnt mnt:[3]\r\nns net net:[4]\r\nterminal\r\n"
	if err := verify([]byte(good), outside); err != nil {
		t.Errorf("verify = %v", err)
	}
	weak := map[string]string{
		good + "sees /root\r\n": "sees /root",
		strings.Replace(good, "CapEff:\t0000000000000000", "CapEff:\t0000000000000001", 1): "CapEff",
		strings.Replace(good, "NoNewPrivs:\t1", "NoNewPrivs:\t0", 1):                       "NoNewPrivs",
		strings.Replace(good, "Seccomp:\t2", "Seccomp:\t0", 1):                             "Seccomp",
		strings.Replace(good, "net:[4]", "net:[2]", 1):                                     "net namespace",
		strings.Replace(good, "Seccomp:\t2\r\n", "", 1):                                    "did not tell",
		"": "did not tell",
	}
	for said, word := range weak {
		if err := verify([]byte(said), outside); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("verify = %v, want it to say %q", err, word)
		}
	}
}

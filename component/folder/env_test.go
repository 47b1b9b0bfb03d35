//go:build unix

package folder_test

import (
	"maps"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/folder"
	"github.com/google/go-cmp/cmp"
)

// always are the variables that there always are.
func always() map[string]string {
	return map[string]string{
		"KBC_RUNID": "1.2", "KBC_PROJECTID": "7", "KBC_DATADIR": "/data/", "KBC_CONFIGID": "c", "KBC_CONFIGVERSION": "",
		"KBC_COMPONENTID": "keboola.ex-foo", "KBC_STACKID": "stack.example.com", "KBC_STAGING_FILE_PROVIDER": "aws",
		"KBC_PROJECT_FEATURE_GATES": "queuev2", "KBC_COMPONENT_RUN_MODE": "run",
	}
}

func environment() folder.Environment {
	return folder.Environment{
		RunID: "1.2", ProjectID: "7", ConfigID: "c", ComponentID: "keboola.ex-foo", StackID: "stack.example.com", FileProvider: "aws",
	}
}

func TestVars(t *testing.T) {
	token := func(e *folder.Environment) {
		e.Token, e.URL = "t0ken", "https://stack.example.com"
		e.ProjectName, e.TokenID, e.TokenDesc, e.RealUser = "p", "9", "d", "u"
	}
	tests := map[string]struct {
		change func(*folder.Environment)
		more   map[string]string
	}{
		"Always":       {func(*folder.Environment) {}, nil},
		"NotForwarded": {token, nil},
		"Optional": {
			func(e *folder.Environment) { e.RowID, e.BranchID, e.DataTypeSupport = "r", "b", "none" },
			map[string]string{"KBC_CONFIGROWID": "r", "KBC_BRANCHID": "b", "KBC_DATA_TYPE_SUPPORT": "none"},
		},
		"Features": {
			func(e *folder.Environment) { e.Features, e.Mode = []string{"a", "queuev2", "b"}, "debug" },
			map[string]string{"KBC_PROJECT_FEATURE_GATES": "a,queuev2,b", "KBC_COMPONENT_RUN_MODE": "debug"},
		},
		"Token": {
			func(e *folder.Environment) { token(e); e.ForwardToken = true },
			map[string]string{"KBC_TOKEN": "t0ken", "KBC_URL": "https://stack.example.com"},
		},
		"Details": {
			func(e *folder.Environment) { token(e); e.ForwardDetails = true },
			map[string]string{"KBC_PROJECTNAME": "p", "KBC_TOKENID": "9", "KBC_TOKENDESC": "d", "KBC_REALUSER": "u"},
		},
		"Logger": {
			func(e *folder.Environment) { e.LoggerAddr, e.LoggerPort = "127.0.0.1", 12202 },
			map[string]string{"KBC_LOGGER_ADDR": "127.0.0.1", "KBC_LOGGER_PORT": "12202"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			e := environment()
			test.change(&e)
			got, err := e.Vars()
			must(t, err)
			want := always()
			maps.Copy(want, test.more)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("variables (-want +got):\n%s", diff)
			}
		})
	}
}

// TestConfigID has digests as PHP computes them: sha1(serialize($parameters)).
func TestConfigID(t *testing.T) {
	tests := map[string]struct{ parameters, want string }{
		"Empty": {`{}`, "8739602554c7f3241958e3cc9b57fdecb474d508"},
		"Full":  {`{"a":1,"b":["xé",true],"7":null,"d":1.5}`, "12955dc252da7e629ca1cfe8871f51b139dd614e"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			e := folder.Environment{Parameters: value(t, test.parameters)}
			got, err := e.Vars()
			must(t, err)
			if got["KBC_CONFIGID"] != test.want {
				t.Errorf("KBC_CONFIGID = %s, want %s", got["KBC_CONFIGID"], test.want)
			}
		})
	}
}

func TestInject(t *testing.T) {
	e := environment()
	e.Inject = true
	e.Parameters = value(t, `{"name":"a b","#password":"p","key2":true,"ünder":false,"n":1.50,"UPPER":""}`)
	got, err := e.Vars()
	must(t, err)
	want := always()
	maps.Copy(want, map[string]string{
		"KBC_PARAMETER_NAME": "a b", "KBC_PARAMETER__PASSWORD": "p", "KBC_PARAMETER_KEY_": "1", "KBC_PARAMETER___NDER": "",
		"KBC_PARAMETER_N": "1.50", "KBC_PARAMETER_UPPER": "",
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("variables (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"KBC_PARAMETER__PASSWORD"}, e.Secrets()); diff != "" {
		t.Errorf("secrets (-want +got):\n%s", diff)
	}
	e.ForwardToken, e.Inject = true, false
	if diff := cmp.Diff([]string{"KBC_TOKEN"}, e.Secrets()); diff != "" {
		t.Errorf("secrets (-want +got):\n%s", diff)
	}
	e.Inject = true
	for name, parameters := range map[string]string{
		"ErrObject": `{"x":{}}`, "ErrList": `{"x":[1]}`, "ErrNull": `{"x":null}`, "ErrZeroByte": `{"x":"a\u0000b"}`,
	} {
		t.Run(name, func(t *testing.T) {
			e.Parameters = value(t, parameters)
			_, err := e.Vars()
			wantErr(t, err, caisson.ErrInvalid, component.UserFault, "parameters.x")
		})
	}
}

package native_test
import ("testing";"time";"os";"path/filepath";"github.com/caissonrun/caisson/engine";"github.com/caissonrun/caisson/engine/native";"context")
func TestDbgOnExit(t *testing.T){
 h := harness(t, native.Options{AllowHostNetwork:true})
 e := h.New(t)
 d := t.TempDir()
 for _, x := range []string{"dir","work"} { os.Mkdir(filepath.Join(d,x),0o700)}
 os.Chown(filepath.Join(d,"work"),1000,1000)
 told := filepath.Join(d,"told")
 spec := &engine.Spec{ID:"dbg-1",Dir:d+"/dir",Log:d+"/log",Work:d+"/work",WorkOwner:engine.Owner{UID:1000,GID:1000},Args:[]string{"sleep","0.3"},
  OnExit: []string{h.Inside,"append",told,"alone "}}
 sb,err := e.Create(context.Background(),spec); if err!=nil {t.Fatal(err)}
 if _,err := sb.Start(context.Background()); err!=nil {t.Fatal(err)}
 e.Close()
 for range 20 { time.Sleep(200*time.Millisecond); x,_:=os.ReadFile(told); t.Logf("%q",x); if len(x)>0 {break} }
 e2 := h.New(t); sb2,err := e2.Recover(context.Background(), spec.Dir); t.Log(err); t.Log(sb2.Destroy(context.Background()))
}

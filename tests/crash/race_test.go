//go:build race

package crash

func init() { raceFlag = []string{"-race"} }

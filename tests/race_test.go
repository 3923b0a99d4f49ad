//go:build race

package tests

func init() { raceFlag = []string{"-race"} }

//go:build race

package p9srv_test

func init() { raceEnabled = true }

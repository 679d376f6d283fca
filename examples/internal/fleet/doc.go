// Package fleet runs the router and the three bots as processes of their own, on
// one SQLite file in a folder, with a fresh key for each queue.
//
//	f, err := fleet.Start(ctx, &fleet.Options{Dir: t.TempDir()})
//	defer f.Close()
//	answer, err := f.Post(ctx, &hook)     // to f.Router.URL("webhooks")
//	err = f.Wait(ctx, func(t []consumer.Task) bool { return len(t) == 1 })
//	f.Bots[0].URL("admin") + "/metrics"   // what Prometheus scrapes
//	f.Database                            // what an attacker opens with package sqliteattack
//
// A test binary runs the programs itself: its TestMain calls [Become] first. Other
// programs name a folder with the binaries, as [Build] makes them.
//
// A Fleet owns its processes and two goroutines for each; Close ends them all.
// Methods are safe for concurrent use, except that one process is started, stopped
// and killed by one goroutine at a time.
package fleet

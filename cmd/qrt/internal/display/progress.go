package display

import (
	"sync"
	"time"

	"github.com/jedib0t/go-pretty/v6/progress"
)

// Bar shows how far long work is, with its rate and the time that remains. On a
// screen that is no terminal it shows nothing.
type Bar struct {
	writer  progress.Writer
	tracker *progress.Tracker
	done    sync.WaitGroup
	once    sync.Once
}

// Bar starts a bar over total steps; 0 means that the number is not known. Done
// must be called: it ends the goroutine that draws, and clears the line.
func (s *Screen) Bar(title string, total int) *Bar {
	b := &Bar{}
	if !s.terminal {
		return b
	}
	w := progress.NewWriter()
	w.SetOutputWriter(s.w)
	w.SetAutoStop(false)
	w.SetUpdateFrequency(100 * time.Millisecond)
	w.SetTrackerLength(24)
	w.SetMessageLength(28)
	w.SetTrackerPosition(progress.PositionRight)
	style := progress.StyleBlocks
	style.Options.Separator = " "
	style.Options.SpeedPosition = progress.PositionRight
	style.Options.SpeedSuffix = "/s"
	style.Options.PercentFormat = "%3.0f%%"
	style.Options.TimeInProgressPrecision = time.Second
	style.Options.ETAPrecision = time.Second
	style.Options.ETAString = "left"
	style.Visibility = progress.StyleVisibility{ETA: total > 0, Percentage: total > 0, Speed: true, Tracker: true, Value: true}
	w.SetStyle(style)
	b.writer = w
	b.tracker = &progress.Tracker{Message: title, Total: int64(total), AutoStopDisabled: true, RemoveOnCompletion: true}
	w.AppendTracker(b.tracker)
	b.done.Go(w.Render)
	return b
}

// Add notes n more steps.
func (b *Bar) Add(n int) {
	if b.tracker != nil {
		b.tracker.Increment(int64(n))
	}
}

// Set notes how many steps are done in all.
func (b *Bar) Set(n int) {
	if b.tracker != nil {
		b.tracker.SetValue(int64(n))
	}
}

// Done ends the bar. A second call does nothing.
func (b *Bar) Done() {
	b.once.Do(func() {
		if b.writer == nil {
			return
		}
		b.tracker.MarkAsDone()
		b.writer.Stop()
		b.done.Wait()
	})
}

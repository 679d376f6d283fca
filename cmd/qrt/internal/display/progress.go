package display

import (
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// Bar shows how far long work is, with its rate and the time that remains. On a
// screen that is no terminal it shows nothing.
type Bar struct {
	container *mpb.Progress // nil means nothing is shown
	bar       *mpb.Bar
	once      sync.Once
}

// Bar starts a bar over total steps; 0 means that the number is not known. Done
// must be called: it ends the goroutines that draw, and clears the line.
func (s *Screen) Bar(title string, total int) *Bar {
	b := &Bar{}
	if !s.terminal {
		return b
	}
	b.container = mpb.New(mpb.WithOutput(s.w), mpb.WithAutoRefresh(), mpb.WithWidth(24), mpb.WithRefreshRate(100*time.Millisecond))
	name := decor.Name(title, decor.WC{W: 28, C: decor.DindentRight})
	rate := decor.AverageSpeed(0, "%.0f/s", decor.WC{W: 9})
	if total == 0 {
		spinner := mpb.SpinnerStyle("⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏").PositionLeft()
		b.bar = b.container.New(0, spinner, mpb.BarWidth(2), mpb.PrependDecorators(name), mpb.AppendDecorators(decor.Any(count)))
		return b
	}
	style := mpb.BarStyle().Lbound("").Rbound("").Filler("━").Tip("━").Padding("─").FillerMeta(s.Name).TipMeta(s.Name).PaddingMeta(s.Dim)
	b.bar = b.container.New(int64(total), style,
		mpb.PrependDecorators(name),
		mpb.AppendDecorators(
			decor.CountersNoUnit("%d/%d", decor.WC{W: 14}), rate,
			decor.AverageETA(decor.ET_STYLE_GO, decor.WC{W: 7}), decor.Name(" left"),
		))
	return b
}

// count shows the steps of work without a total, once there is one: some count
// none.
func count(s decor.Statistics) string {
	if s.Current == 0 {
		return ""
	}
	return Count(s.Current)
}

// Add notes n more steps.
func (b *Bar) Add(n int) {
	if b.bar != nil {
		b.bar.IncrBy(n)
	}
}

// Set notes how many steps are done in all.
func (b *Bar) Set(n int) {
	if b.bar != nil {
		b.bar.SetCurrent(int64(n))
	}
}

// Done ends the bar. A second call does nothing.
func (b *Bar) Done() {
	b.once.Do(func() {
		if b.container == nil {
			return
		}
		const fromScreen = true
		b.bar.Abort(fromScreen)
		b.container.Wait()
	})
}

package mapping

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
)

// ParseTime reads a date as people write it in changed_since: a Unix time, an
// ISO date, or one relative to now, such as "-2 days", "yesterday noon" or
// "first day of last month", with the meaning that PHP's strtotime gives it.
// What has no zone of its own is in now's.
//
// Errors: ErrInvalid.
func ParseTime(text string, now time.Time) (time.Time, error) {
	p := when{now: now, zone: now.Location()}
	if err := p.parse(strings.ToLower(strings.TrimSpace(text))); err != nil {
		return time.Time{}, &caisson.Error{
			Item: strconv.Quote(text), Kind: caisson.ErrInvalid,
			Err: fmt.Errorf("not a date: %w; write 2026-01-31, 2026-01-31T10:00:00Z, a Unix time or \"-2 days\"", err),
		}
	}
	return p.time(), nil
}

// when is a date that is being read: what was said about it so far.
type when struct {
	now  time.Time
	zone *time.Location

	hasDate, hasTime, hasUnix, hasWeekday bool

	year, month, day     int
	hour, min, sec, nsec int
	unix                 int64

	// rel is what is added.
	rel struct{ year, month, day, hour, min, sec, weekdays int }

	weekday  time.Weekday
	behavior int // 0: today does not count as the weekday, 1: it does, 2: of this week
	edge     int // 1: first day of the month, 2: last
}

// A dateRule is one form that a part of a date can have.
type dateRule struct {
	form *regexp.Regexp
	read func(p *when, m []string) error
}

const (
	monthWord = `(jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)`
	dayWord   = `(sun(?:day)?|mon(?:day)?|tues?(?:day)?|wed(?:nesday)?|thu(?:r|rs|rsday)?|fri(?:day)?|sat(?:urday)?)`
	unitWord  = `(milliseconds?|msecs?|ms|seconds?|secs?|minutes?|mins?|hours?|days?|weekdays?|weeks?|fortnights?|forthnights?|months?|years?)`
	countWord = `(next|last|previous|this|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth)`
	clockForm = `t?([01]?[0-9]|2[0-4])[:.]([0-5][0-9])(?:[:.]([0-5][0-9]|60)(?:[.,:]([0-9]+))?)?`
)

// dateRules holds all forms. The longest match wins, then the first.
var dateRules = []dateRule{
	{form(`@(-?[0-9]{1,12})(?:\.[0-9]{0,9})?`), (*when).readUnix},
	{form(`([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})`), numbers(0, 1, 2)},
	{form(`([0-9]{4})/([0-9]{1,2})/([0-9]{1,2})`), numbers(0, 1, 2)},
	{form(`([0-9]{1,2})/([0-9]{1,2})/([0-9]{4})`), numbers(2, 0, 1)},
	{form(`([0-9]{1,2})[.\-]([0-9]{1,2})[.\-]([0-9]{4})`), numbers(2, 1, 0)},
	{form(`([0-9]{4})-([0-9]{2})`), numbers(0, 1, -1)},
	{form(`([0-9]{4})(0[1-9]|1[0-2])([0-3][0-9])`), numbers(0, 1, 2)},
	{form(`([0-9]{4})(0[1-9]|1[0-2])([0-3][0-9])t?([01][0-9]|2[0-3])([0-5][0-9])([0-5][0-9])?`), (*when).readCompact},
	{form(`([0-9]{1,2})(?:st|nd|rd|th)?[ .\t-]*` + monthWord + `[ .\t,-]*([0-9]{4})`), (*when).readDayMonth},
	{form(monthWord + `[ .\t-]*([0-9]{1,2})(?:st|nd|rd|th)?[ .\t,]+([0-9]{4})`), (*when).readMonthDay},
	{form(monthWord + `[ .\t-]*([0-9]{4})`), (*when).readMonthYear},
	{form(`([0-9]{1,2})(?:st|nd|rd|th)?[ .\t-]*` + monthWord), (*when).readDayMonth},
	{form(monthWord + `[ .\t-]*([0-9]{1,2})(?:st|nd|rd|th)?`), (*when).readMonthDay},
	{form(monthWord), (*when).readMonthYear},
	{form(clockForm), (*when).readClock},
	{form(clockForm + `[ \t]*([ap])\.?m\.?`), (*when).readClock},
	{form(`(1[0-2]|0?[1-9])[ \t]*([ap])\.?m\.?`), (*when).readHour},
	{form(`(now|today|midnight|noon|tomorrow|yesterday)`), (*when).readWord},
	{form(`(first|last) day of`), (*when).readEdge},
	{form(`([+-]*)[ \t]*([0-9]{1,9})[ \t]*` + unitWord), (*when).readAmount},
	{form(`([+-]*)[ \t]*([0-9]{1,9})[ \t]*` + dayWord), (*when).readDays},
	{form(countWord + `[ \t]+` + unitWord), (*when).readCount},
	{form(countWord + `[ \t]+` + dayWord), (*when).readCountDay},
	{form(dayWord + `\.?`), (*when).readDay},
	{form(`ago`), (*when).readAgo},
	{form(`\(?(z|utc|gmt)\)?`), (*when).readUTC},
	{form(`(?:gmt|utc)?([+-])(0?[0-9]|1[0-4]):?([0-5][0-9])?`), (*when).readOffset},
	{form(`([a-z]+/[a-z_]+(?:/[a-z_]+)?)`), (*when).readZone},
}

func form(text string) *regexp.Regexp {
	r := regexp.MustCompile(`^` + text)
	r.Longest()
	return r
}

func (p *when) parse(rest string) error {
	if rest == "" {
		return fmt.Errorf("it is empty")
	}
	if len(rest) > 200 {
		return fmt.Errorf("it is too long")
	}
	// A number of nine digits and more is a Unix time for storages, whatever
	// strtotime makes of it. One of four is a time of day there, and a year for
	// people.
	if n, err := strconv.ParseInt(rest, 10, 64); err == nil {
		digits := strings.TrimLeft(rest, "+-")
		switch {
		case len(digits) >= 9 && len(digits) <= 12:
			p.hasUnix, p.unix = true, n
			return nil
		case len(digits) != 8 && len(digits) != 14:
			return fmt.Errorf("a number of %d digits can mean many things", len(digits))
		}
	}
	for rest = skip(rest); rest != ""; rest = skip(rest) {
		n, err := p.next(rest)
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// skip leaves out what stands between two parts.
func skip(s string) string { return strings.TrimLeft(s, " \t,") }

// next reads the part that s begins with and returns its length.
func (p *when) next(s string) (int, error) {
	var best []string
	var rule *dateRule
	for i := range dateRules {
		m := dateRules[i].form.FindStringSubmatch(s)
		if m == nil || best != nil && len(m[0]) <= len(best[0]) || cutsWord(s, len(m[0])) {
			continue
		}
		best, rule = m, &dateRules[i]
	}
	if best == nil {
		return 0, fmt.Errorf("%q is not understood", s)
	}
	return len(best[0]), rule.read(p, best)
}

// cutsWord reports whether s[:n] ends inside of a word or a number.
func cutsWord(s string, n int) bool {
	if n >= len(s) {
		return false
	}
	letter := func(c byte) bool { return 'a' <= c && c <= 'z' }
	digit := func(c byte) bool { return '0' <= c && c <= '9' }
	a, b := s[n-1], s[n]
	if letter(a) && letter(b) {
		return true
	}
	// "2020-01-01t10:00z": a letter may follow a digit where a clock or a zone
	// begins.
	return digit(a) && (digit(b) || letter(b) && b != 't' && b != 'z' && b != 'u' && b != 'g')
}

// numbers reads a date of numbers: the year, month and day are these groups, a
// day of -1 is the first.
func numbers(year, month, day int) func(*when, []string) error {
	return func(p *when, m []string) error {
		d := 1
		if day >= 0 {
			d = atoi(m[day+1])
		}
		return p.setDate(atoi(m[year+1]), atoi(m[month+1]), d)
	}
}

func (p *when) setDate(year, month, day int) error {
	if p.hasDate {
		return fmt.Errorf("there are two dates")
	}
	if month < 1 || month > 12 || day < 1 || day > 31 {
		return fmt.Errorf("there is no month %d with a day %d", month, day)
	}
	p.hasDate, p.year, p.month, p.day = true, year, month, day
	return nil
}

func (p *when) setClock(hour, min, sec, nsec int) error {
	if p.hasTime && (p.hour != 0 || p.min != 0 || p.sec != 0) {
		return fmt.Errorf("there are two times of day")
	}
	p.hasTime, p.hour, p.min, p.sec, p.nsec = true, hour, min, sec, nsec
	return nil
}

func (p *when) readUnix(m []string) error {
	n, err := strconv.ParseInt(m[1], 10, 64)
	p.hasUnix, p.unix = true, n
	return err
}

func (p *when) readCompact(m []string) error {
	if err := p.setDate(atoi(m[1]), atoi(m[2]), atoi(m[3])); err != nil {
		return err
	}
	return p.setClock(atoi(m[4]), atoi(m[5]), atoi(m[6]), 0)
}

func (p *when) readDayMonth(m []string) error {
	year := p.now.In(p.zone).Year()
	if len(m) > 3 {
		year = atoi(m[3])
	}
	return p.setDate(year, monthOf(m[2]), atoi(m[1]))
}

func (p *when) readMonthDay(m []string) error {
	year := p.now.In(p.zone).Year()
	if len(m) > 3 {
		year = atoi(m[3])
	}
	return p.setDate(year, monthOf(m[1]), atoi(m[2]))
}

func (p *when) readMonthYear(m []string) error {
	now := p.now.In(p.zone)
	if len(m) > 2 {
		return p.setDate(atoi(m[2]), monthOf(m[1]), 1)
	}
	return p.setDate(now.Year(), monthOf(m[1]), now.Day())
}

func (p *when) readClock(m []string) error {
	hour := atoi(m[1])
	if len(m) > 5 {
		if hour < 1 || hour > 12 {
			return fmt.Errorf("there is no %d o'clock %sm", hour, m[5])
		}
		hour = hour%12 + 12*strings.Index("ap", m[5])
	}
	nsec := 0
	if m[4] != "" {
		nsec = atoi((m[4] + "000000000")[:9])
	}
	return p.setClock(hour, atoi(m[2]), atoi(m[3]), nsec)
}

func (p *when) readHour(m []string) error {
	return p.setClock(atoi(m[1])%12+12*strings.Index("ap", m[2]), 0, 0, 0)
}

func (p *when) readWord(m []string) error {
	switch m[1] {
	case "now":
		return nil
	case "tomorrow":
		p.rel.day++
	case "yesterday":
		p.rel.day--
	case "noon":
		return p.setClock(12, 0, 0, 0)
	}
	if p.hasTime { // "10:00 tomorrow"
		return nil
	}
	return p.setClock(0, 0, 0, 0)
}

func (p *when) readEdge(m []string) error {
	p.edge = 1
	if m[1] == "last" {
		p.edge = 2
	}
	return nil
}

func (p *when) readAmount(m []string) error { return p.add(signed(m[1], m[2]), m[3]) }

// readDays reads "+2 monday".
func (p *when) readDays(m []string) error {
	p.setWeekday(signed(m[1], m[2]), m[3], 0)
	return nil
}

func (p *when) readCount(m []string) error {
	n, _ := countOf(m[1])
	return p.add(n, m[2])
}

func (p *when) readCountDay(m []string) error {
	n, behavior := countOf(m[1])
	p.setWeekday(n, m[2], behavior)
	return nil
}

func (p *when) readDay(m []string) error {
	// In "Mon, 15 Aug 2005" the day says nothing new.
	if !p.hasWeekday {
		p.setWeekday(0, m[1], 1)
	}
	return nil
}

// setWeekday goes to the n-th such day from here.
func (p *when) setWeekday(n int, name string, behavior int) {
	if n > 0 {
		n--
	}
	p.hasWeekday, p.weekday, p.behavior = true, weekdayOf(name), behavior
	p.rel.day += 7 * n
	if !p.hasTime {
		p.hasTime = true // at midnight
	}
}

func (p *when) add(n int, unit string) error {
	if n > 1e8 || n < -1e8 {
		return fmt.Errorf("%d is too many", n)
	}
	switch {
	case strings.HasPrefix(unit, "ms"), strings.HasPrefix(unit, "milli"): // less than is kept
	case strings.HasPrefix(unit, "sec"):
		p.rel.sec += n
	case strings.HasPrefix(unit, "min"):
		p.rel.min += n
	case strings.HasPrefix(unit, "hour"):
		p.rel.hour += n
	case strings.HasPrefix(unit, "weekday"):
		if n > 10000 || n < -10000 {
			return fmt.Errorf("%d is too many", n)
		}
		p.rel.weekdays += n
	case strings.HasPrefix(unit, "week"):
		p.rel.day += 7 * n
		if p.hasWeekday { // "monday next week"
			p.behavior = 2
		}
	case strings.HasPrefix(unit, "fort"):
		p.rel.day += 14 * n
	case strings.HasPrefix(unit, "day"):
		p.rel.day += n
	case strings.HasPrefix(unit, "month"):
		p.rel.month += n
	case strings.HasPrefix(unit, "year"):
		p.rel.year += n
	}
	return nil
}

func (p *when) readAgo([]string) error {
	r := &p.rel
	r.year, r.month, r.day = -r.year, -r.month, -r.day
	r.hour, r.min, r.sec, r.weekdays = -r.hour, -r.min, -r.sec, -r.weekdays
	return nil
}

func (p *when) readUTC([]string) error {
	p.zone = time.UTC
	return nil
}

func (p *when) readOffset(m []string) error {
	seconds := atoi(m[2])*3600 + atoi(m[3])*60
	if m[1] == "-" {
		seconds = -seconds
	}
	p.zone = time.FixedZone("", seconds)
	return nil
}

func (p *when) readZone(m []string) error {
	parts := strings.Split(m[1], "/")
	for i, part := range parts {
		words := strings.Split(part, "_")
		for k, w := range words {
			if w != "" {
				words[k] = strings.ToUpper(w[:1]) + w[1:]
			}
		}
		parts[i] = strings.Join(words, "_")
	}
	zone, err := time.LoadLocation(strings.Join(parts, "/"))
	if err != nil {
		return fmt.Errorf("the time zone %q is not known here", m[1])
	}
	p.zone = zone
	return nil
}

// time puts together what was read.
func (p *when) time() time.Time {
	now := p.now.In(p.zone)
	if p.hasUnix {
		now = time.Unix(p.unix, 0).UTC()
	}
	year, month, day := now.Year(), int(now.Month()), now.Day()
	hour, min, sec, nsec := now.Hour(), now.Minute(), now.Second(), 0
	if p.hasDate {
		year, month, day = p.year, p.month, p.day
		hour, min, sec = 0, 0, 0
	}
	if p.hasTime {
		hour, min, sec, nsec = p.hour, p.min, p.sec, p.nsec
	}
	if p.hasWeekday {
		day += p.toWeekday(time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC).Weekday())
	}
	year, month, day = year+p.rel.year, month+p.rel.month, day+p.rel.day
	switch p.edge {
	case 1:
		day = 1
	case 2:
		month, day = month+1, 0
	}
	t := time.Date(year, time.Month(month), day, hour+p.rel.hour, min+p.rel.min, sec+p.rel.sec, nsec, now.Location())
	return overWeekdays(t, p.rel.weekdays)
}

// toWeekday returns how many days there are from a day of the week to the one
// that was asked for.
func (p *when) toWeekday(from time.Weekday) int {
	to := p.weekday
	if p.behavior == 2 { // weeks begin on Monday
		return int(to+6)%7 - int(from+6)%7
	}
	n := int(to - from)
	if p.rel.day < 0 && n < 0 || p.rel.day >= 0 && n <= -p.behavior {
		n += 7
	}
	return n
}

// overWeekdays goes n days on that are no Saturday or Sunday.
func overWeekdays(t time.Time, n int) time.Time {
	step := 1
	if n < 0 {
		step = -1
	}
	for n != 0 {
		t = t.AddDate(0, 0, step)
		if d := t.Weekday(); d != time.Saturday && d != time.Sunday {
			n -= step
		}
	}
	return t
}

// signed reads "--2" as PHP does: two signs are none.
func signed(signs, digits string) int {
	n := atoi(digits)
	if strings.Count(signs, "-")%2 == 1 {
		return -n
	}
	return n
}

func atoi(s string) int {
	n, _ := strconv.Atoi(s) // the forms let digits through only
	return n
}

// countOf returns what a word counts, and whether today counts for it.
func countOf(word string) (n, behavior int) {
	switch word {
	case "last", "previous":
		return -1, 0
	case "this":
		return 0, 1
	case "next":
		return 1, 0
	}
	words := [...]string{"first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth"}
	for i, w := range words {
		if w == word {
			return i + 1, 0
		}
	}
	return 0, 0
}

func monthOf(word string) int {
	return strings.Index("janfebmaraprmayjunjulaugsepoctnovdec", word[:3])/3 + 1
}

func weekdayOf(word string) time.Weekday {
	return time.Weekday(strings.Index("sunmontuewedthufrisat", word[:3]) / 3)
}

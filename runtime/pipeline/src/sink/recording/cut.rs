//! Which units of a stream go into which film. Pure: a machine that takes units and gives steps.

use std::time::Duration;

use revoada_core::Timestamp;

/// How films are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) before: Duration,
    pub(super) after: Duration,
    pub(super) length_max: Duration,
}

/// What is to be done for a unit, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step<C> {
    /// The open film ends before the unit.
    Complete,
    /// A film begins with the units since a time, and has this one in it. There is no cause where it goes on with what
    /// another one could not hold.
    Begin { since: Timestamp, cause: Option<C> },
    /// Something more happened while a film is open.
    Extend(C),
    /// The unit goes into the open film.
    Write,
}

/// Something for which a film is made, and how long it goes on behind that; `None` as the limits say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cause<C> {
    pub(super) what: C,
    pub(super) after: Option<Duration>,
}

/// One stream's films, of which at most one is open.
#[derive(Debug)]
pub(super) struct Cutter {
    limits: Limits,
    open: Option<Open>,
    /// A film that was cut is to go on until then.
    owed: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    /// The film ends here whatever happens.
    end: Timestamp,
    /// What happened is to be seen until then, in this film or the next.
    until: Timestamp,
}

impl Cutter {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, open: None, owed: None }
    }

    /// When the open film ends, as far as is known.
    pub(super) fn ends(&self) -> Option<Timestamp> {
        self.open.map(|open| open.until.min(open.end))
    }

    /// The open film cannot go on.
    pub(super) fn give_up(&mut self) {
        self.open = None;
    }

    /// The open film ends before the next unit, with which another goes on.
    pub(super) fn cut(&mut self) {
        self.owed = self.open.take().map(|open| open.until);
    }

    /// The next unit, shown at `pts`, with what happened in its picture. `is_full`: it does not fit into the open film.
    pub(super) fn step<C>(&mut self, pts: Timestamp, is_full: bool, causes: Vec<Cause<C>>) -> Vec<Step<C>> {
        let mut steps = Vec::new();
        let mut owed = self.owed.take();
        if let Some(Open { end, until }) = self.open.filter(|open| is_full || pts > open.until.min(open.end)) {
            steps.push(Step::Complete);
            self.open = None;
            owed = Some(until).filter(|_| is_full || pts > end);
        }
        let mut begun = false;
        if let Some(until) = owed.filter(|until| pts <= *until) {
            self.open = Some(Open { end: pts + self.limits.length_max, until });
            steps.push(Step::Begin { since: pts, cause: None });
            begun = true;
        }
        for Cause { what, after } in causes {
            let wanted = pts + after.unwrap_or(self.limits.after);
            match &mut self.open {
                Some(open) => {
                    open.until = open.until.max(wanted);
                    steps.push(Step::Extend(what));
                }
                None => {
                    let since = Timestamp::ZERO + pts.since(Timestamp::ZERO + self.limits.before);
                    self.open = Some(Open { end: since + self.limits.length_max, until: wanted });
                    steps.push(Step::Begin { since, cause: Some(what) });
                    begun = true;
                }
            }
        }
        if self.open.is_some() && !begun {
            steps.push(Step::Write);
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { before: Duration::from_secs(2), after: Duration::from_secs(3), length_max: Duration::from_secs(10) };

    fn at(second: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_secs(second)
    }

    /// The films of a stream of one unit a second: from when on their units are, and the last.
    fn films(seconds: u64, happens: &[(u64, Option<u64>)], full_at: Option<u64>) -> Vec<(u64, Option<u64>)> {
        let (mut cutter, mut films) = (Cutter::new(LIMITS), Vec::<(u64, Option<u64>)>::new());
        let mut open = false;
        for second in 0..seconds {
            let causes = happens.iter().filter(|(when, _)| *when == second);
            let causes = causes.map(|(when, after)| Cause { what: *when, after: after.map(Duration::from_secs) });
            for step in cutter.step(at(second), Some(second) == full_at, causes.collect()) {
                match step {
                    Step::Complete => {
                        films.last_mut().unwrap().1 = Some(second - 1);
                        open = false;
                    }
                    Step::Begin { since, .. } => {
                        films.push((since.as_secs_f64() as u64, None));
                        open = true;
                    }
                    Step::Write | Step::Extend(_) => assert!(open),
                }
            }
        }
        films
    }

    #[test]
    fn films_are_cut_around_what_happens() {
        for (happens, full_at, expected) in [
            (&[(5, None)][..], None, &[(3, Some(8))][..]),
            // At the beginning there is nothing before it, and at the end nothing behind.
            (&[(1, None), (38, None)], None, &[(0, Some(4)), (36, None)]),
            // What happens within the film extends it, up to its last second.
            (&[(5, None), (8, None)], None, &[(3, Some(11))]),
            (&[(5, None), (9, None)], None, &[(3, Some(8)), (7, Some(12))]),
            // Several things at once make one film; a request may ask for more.
            (&[(5, None), (5, Some(6))], None, &[(3, Some(11))]),
            (&[(5, Some(0))], None, &[(3, Some(5))]),
            // One that reaches its length goes on in another.
            (&[(5, None), (8, None), (11, None)], None, &[(3, Some(13)), (14, Some(14))]),
            (&[(5, Some(22))], None, &[(3, Some(13)), (14, Some(24)), (25, Some(27))]),
            // So does one that is full.
            (&[(5, None)], Some(7), &[(3, Some(6)), (7, Some(8))]),
        ] {
            assert_eq!(films(40, happens, full_at), expected, "{happens:?}");
        }
    }

    #[test]
    fn what_is_cut_goes_on_with_the_next_unit() {
        let mut cutter = Cutter::new(LIMITS);
        cutter.step(at(5), false, vec![Cause { what: (), after: None }]);
        cutter.cut();
        let nothing = Vec::<Cause<()>>::new;
        assert_eq!(cutter.step(at(6), false, nothing()), [Step::Begin { since: at(6), cause: None }]);
        assert_eq!(cutter.step(at(8), false, nothing()), [Step::Write]);
        assert_eq!(cutter.step(at(9), false, nothing()), [Step::Complete]);
        cutter.cut();
        assert_eq!(cutter.step(at(10), false, nothing()), []);
    }

    #[test]
    fn what_was_given_up_does_not_go_on() {
        let mut cutter = Cutter::new(LIMITS);
        let cause = || vec![Cause { what: (), after: None }];
        assert_eq!(cutter.step(at(5), false, cause()), [Step::Begin { since: at(3), cause: Some(()) }]);
        cutter.give_up();
        assert_eq!(cutter.step(at(6), false, Vec::<Cause<()>>::new()), []);
        assert_eq!(cutter.step(at(7), false, cause()), [Step::Begin { since: at(5), cause: Some(()) }]);
    }
}

//! What the pages say, in the languages they know.

use std::time::Duration;

use super::accept::weighted;

/// A language that the pages know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    /// English, also for everybody whose language is not known.
    #[default]
    English,
    /// German.
    German,
    /// French.
    French,
    /// Spanish.
    Spanish,
}

/// All texts in one language. `{}` is where the one value goes.
#[derive(Debug)]
pub(super) struct Words {
    pub(super) tag: &'static str,
    pub(super) heading: &'static str,
    pub(super) any_moment: &'static str,
    pub(super) usual_seconds: &'static str,
    pub(super) usual_minutes: &'static str,
    pub(super) queued: &'static str,
    pub(super) paused: &'static str,
    pub(super) needs: &'static str,
    pub(super) starting: &'static str,
    pub(super) checking: &'static str,
    pub(super) longer: &'static str,
    pub(super) dependency_waking: &'static str,
    pub(super) dependency_ready: &'static str,
    pub(super) failed_heading: &'static str,
    pub(super) retry: &'static str,
    pub(super) retry_in: &'static str,
    pub(super) timed_out: &'static str,
    pub(super) start_failed: &'static str,
    pub(super) too_many: &'static str,
    pub(super) engine_away: &'static str,
    pub(super) put_to_sleep: &'static str,
    pub(super) stays_down: &'static str,
    pub(super) shutting_down: &'static str,
}

static ENGLISH: Words = Words {
    tag: "en",
    heading: "{} is waking up",
    any_moment: "It will be here in a moment.",
    usual_seconds: "Usually ready in about {} s.",
    usual_minutes: "Usually ready in about {} min.",
    queued: "Waiting for others that are waking up first.",
    paused: "It was paused by its owner, and goes on within half a minute.",
    needs: "Waking what it needs first.",
    starting: "Starting.",
    checking: "Almost there.",
    longer: "It takes a little longer than usual.",
    dependency_waking: "{} is waking up",
    dependency_ready: "{} is awake",
    failed_heading: "{} did not wake up",
    retry: "Try again",
    retry_in: "The next try is possible in {} s.",
    timed_out: "It was started but was not ready in time.",
    start_failed: "It could not be started.",
    too_many: "Too many are waiting for it already.",
    engine_away: "The system that runs it does not answer.",
    put_to_sleep: "It was put to sleep by an order.",
    stays_down: "It was switched off and stays off until somebody switches it on.",
    shutting_down: "The proxy is restarting.",
};

static GERMAN: Words = Words {
    tag: "de",
    heading: "{} wacht auf",
    any_moment: "Gleich ist es so weit.",
    usual_seconds: "Meist bereit in etwa {} s.",
    usual_minutes: "Meist bereit in etwa {} min.",
    queued: "Wartet auf andere, die zuerst aufwachen.",
    paused: "Es wurde angehalten und läuft in höchstens einer halben Minute weiter.",
    needs: "Zuerst wacht auf, was gebraucht wird.",
    starting: "Startet.",
    checking: "Fast geschafft.",
    longer: "Es dauert etwas länger als sonst.",
    dependency_waking: "{} wacht auf",
    dependency_ready: "{} ist wach",
    failed_heading: "{} ist nicht aufgewacht",
    retry: "Noch einmal versuchen",
    retry_in: "Der nächste Versuch ist in {} s möglich.",
    timed_out: "Gestartet, aber nicht rechtzeitig bereit.",
    start_failed: "Der Start ist fehlgeschlagen.",
    too_many: "Es warten schon zu viele darauf.",
    engine_away: "Das System dahinter antwortet nicht.",
    put_to_sleep: "Es wurde auf Anweisung schlafen gelegt.",
    stays_down: "Es wurde abgeschaltet und bleibt aus, bis es jemand einschaltet.",
    shutting_down: "Der Proxy startet gerade neu.",
};

static FRENCH: Words = Words {
    tag: "fr",
    heading: "{} se réveille",
    any_moment: "Encore un instant.",
    usual_seconds: "Prêt d’habitude en {} s environ.",
    usual_minutes: "Prêt d’habitude en {} min environ.",
    queued: "D’autres se réveillent d’abord.",
    paused: "Il a été mis en pause et reprend d’ici une demi-minute.",
    needs: "Réveil de ce dont il a besoin.",
    starting: "Démarrage.",
    checking: "Presque prêt.",
    longer: "C’est un peu plus long que d’habitude.",
    dependency_waking: "{} se réveille",
    dependency_ready: "{} est réveillé",
    failed_heading: "{} ne s’est pas réveillé",
    retry: "Réessayer",
    retry_in: "Nouvel essai possible dans {} s.",
    timed_out: "Démarré, mais pas prêt à temps.",
    start_failed: "Le démarrage a échoué.",
    too_many: "Trop de visiteurs attendent déjà.",
    engine_away: "Le système qui l’héberge ne répond pas.",
    put_to_sleep: "Il a été mis en veille sur ordre.",
    stays_down: "Il a été éteint et le reste jusqu’à ce que quelqu’un le rallume.",
    shutting_down: "Le proxy redémarre.",
};

static SPANISH: Words = Words {
    tag: "es",
    heading: "{} se está despertando",
    any_moment: "Un momento, por favor.",
    usual_seconds: "Suele estar listo en unos {} s.",
    usual_minutes: "Suele estar listo en unos {} min.",
    queued: "Otros se despiertan primero.",
    paused: "Su dueño lo ha pausado; sigue en menos de medio minuto.",
    needs: "Primero se despierta lo que necesita.",
    starting: "Arrancando.",
    checking: "Casi listo.",
    longer: "Tarda un poco más de lo habitual.",
    dependency_waking: "{} se está despertando",
    dependency_ready: "{} está despierto",
    failed_heading: "{} no se ha despertado",
    retry: "Reintentar",
    retry_in: "Se podrá reintentar en {} s.",
    timed_out: "Arrancó, pero no estuvo listo a tiempo.",
    start_failed: "No se pudo arrancar.",
    too_many: "Ya hay demasiados esperando.",
    engine_away: "El sistema que lo ejecuta no responde.",
    put_to_sleep: "Se puso a dormir por orden.",
    stays_down: "Se apagó y seguirá apagado hasta que alguien lo encienda.",
    shutting_down: "El proxy se está reiniciando.",
};

impl Language {
    /// Every language.
    pub const ALL: [Self; 4] = [Self::English, Self::German, Self::French, Self::Spanish];

    /// The best one for an `Accept-Language` header, or English.
    pub fn choose(accept_language: Option<&str>) -> Self {
        let mut best = (0, Self::English);
        for (tag, weight) in weighted(accept_language.unwrap_or_default()) {
            let primary = tag.split('-').next().unwrap_or_default();
            let known = Self::ALL.into_iter().find(|language| language.tag().eq_ignore_ascii_case(primary));
            if let Some(language) = known
                && weight > best.0
            {
                best = (weight, language);
            }
        }
        best.1
    }

    /// Its tag, such as `en`.
    pub fn tag(self) -> &'static str {
        self.words().tag
    }

    pub(super) fn words(self) -> &'static Words {
        match self {
            Self::English => &ENGLISH,
            Self::German => &GERMAN,
            Self::French => &FRENCH,
            Self::Spanish => &SPANISH,
        }
    }

    /// How long it usually takes, when that is known.
    pub(super) fn usual(self, expected: Option<Duration>) -> String {
        let words = self.words();
        match expected.map(|time| time.as_secs_f64().ceil() as u64) {
            None => words.any_moment.to_owned(),
            Some(seconds) if seconds <= 90 => fill(words.usual_seconds, &seconds.max(1).to_string()),
            Some(seconds) => fill(words.usual_minutes, &seconds.div_ceil(60).to_string()),
        }
    }
}

/// Puts the value where the `{}` is.
pub(super) fn fill(pattern: &str, value: &str) -> String {
    pattern.replacen("{}", value, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_known_language_is_chosen() {
        for (header, expected) in [
            (None, Language::English),
            (Some("de"), Language::German),
            (Some("DE-at,en;q=0.5"), Language::German),
            (Some("ja,fr;q=0.4,es;q=0.8"), Language::Spanish),
            (Some("ja, ko"), Language::English),
            (Some("de;q=0, en"), Language::English),
            (Some("en, de"), Language::English),
            (Some("*;q=0.1,fr-CA"), Language::French),
        ] {
            assert_eq!(Language::choose(header), expected, "{header:?}");
        }
    }

    #[test]
    fn expected_times_are_rounded_up() {
        assert_eq!(Language::English.usual(Some(Duration::from_millis(200))), "Usually ready in about 1 s.");
        assert_eq!(Language::German.usual(Some(Duration::from_millis(3200))), "Meist bereit in etwa 4 s.");
        assert_eq!(Language::English.usual(Some(Duration::from_secs(121))), "Usually ready in about 3 min.");
        assert_eq!(Language::French.usual(None), "Encore un instant.");
    }

    #[test]
    fn every_pattern_has_the_place_for_its_value() {
        for language in Language::ALL {
            let w = language.words();
            for pattern in [
                w.heading,
                w.usual_seconds,
                w.usual_minutes,
                w.dependency_waking,
                w.dependency_ready,
                w.failed_heading,
                w.retry_in,
            ] {
                assert_eq!(pattern.matches("{}").count(), 1, "{pattern}");
            }
        }
    }
}

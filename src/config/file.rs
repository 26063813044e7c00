//! The file and the files it includes.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    expand::Sources,
    include,
    keys::WrittenKeys,
    middleware_bodies, own_address,
    read_text::{Kinds, read_text},
    settings::{self, FILE_KEYS},
    static_routes::{self, Draft, Read, Runs},
    tree::{Fields, Node, Value, normal},
    written::Written,
    yaml,
};
use crate::model::{
    BackendId, BackendSpec, EngineAddress, NodeName, NodeSpec, Place, Problem, Problems, RouteSpec, Settings,
};

/// What a file says, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The settings of the program.
    pub settings: Settings,
    /// The routes of the file and of those it includes.
    pub routes: Vec<Arc<RouteSpec>>,
    /// The backends named there.
    pub backends: Vec<BackendSpec>,
    /// What was written of each of them, and where. Of a backend without an entry all counts as written.
    pub written: BTreeMap<BackendId, Written>,
    /// The keys of the settings.
    pub keys: WrittenKeys,
    /// Warnings and hints; never an error.
    pub problems: Problems,
    /// Every file that was read, to be watched.
    pub files: Vec<PathBuf>,
}

impl Loaded {
    /// The main file as a whole; absent: there is none.
    pub fn place(&self) -> Option<Place> {
        let path = self.files.first()?.display().to_string().into();
        Some(Place::File { path, line: None, column: None })
    }
}

/// Reads and checks a file and all it includes. Any error refuses the whole, with all problems at once.
pub fn load(path: &Path, env: &(dyn Fn(&str) -> Option<String> + Sync)) -> Result<Loaded, Problems> {
    let name = path.display().to_string();
    match read_text(path, Kinds::FilesAndPipes) {
        Ok(text) => check(&text, &name, path, env, false),
        Err(error) => {
            let place = Place::File { path: name.into(), line: None, column: None };
            let problem = Problem::error(place, format!("can not read it: {error}"));
            Err(Problems(vec![problem.with_hint(read_hint(&error))]))
        }
    }
}

/// What to do about a file that can not be read.
fn read_hint(error: &io::Error) -> String {
    let kind = error.kind();
    if kind == io::ErrorKind::PermissionDenied {
        format!("this was tried as user {}", nix::unistd::geteuid())
    } else if kind == io::ErrorKind::InvalidData {
        "write it as text in UTF-8".to_owned()
    } else {
        "name a file that is there, or none".to_owned()
    }
}

/// The text that [`load`] would check.
///
/// # Errors
/// What keeps it from being read: what is no file is told at once.
pub fn text_of(path: &Path) -> io::Result<String> {
    read_text(path, Kinds::FilesAndPipes)
}

/// Checks a text as if it were the file of this name; what it includes is read from beside it.
pub fn check_text(text: &str, name: &str, env: &(dyn Fn(&str) -> Option<String> + Sync)) -> Result<Loaded, Problems> {
    check(text, name, Path::new(name), env, false)
}

/// Checks a text that anybody may have sent: as [`check_text`], but no file is read and no variable looked at for it.
pub fn check_sent(text: &str, name: &str) -> Result<Loaded, Problems> {
    check(text, name, Path::new(name), &|_| None, true)
}

fn check(
    text: &str,
    name: &str,
    path: &Path,
    env: &(dyn Fn(&str) -> Option<String> + Sync),
    sealed: bool,
) -> Result<Loaded, Problems> {
    let base = path.parent().unwrap_or(Path::new("")).to_owned();
    let mut sources = Sources { env, base, files: vec![path.to_owned()], sealed };
    let mut problems = Problems::default();
    let draft = read(text, name, &mut sources, &mut problems);
    let keys = draft.as_ref().map(|draft| WrittenKeys::of(&draft.main)).unwrap_or_default();
    let checked = draft.map(|draft| finish(&draft, &mut sources, &mut problems));
    problems.0.sort_by(|a, b| a.place.cmp(&b.place));
    problems.tell_once();
    match checked {
        Some((settings, Read { routes, backends, written })) if !problems.has_errors() => {
            Ok(Loaded { settings, routes, backends, written, keys, problems, files: sources.files })
        }
        _ => Err(problems),
    }
}

/// The trees of the file and of what it includes.
struct FileDraft {
    main: Node,
    included: Vec<Node>,
}

fn read(text: &str, name: &str, sources: &mut Sources<'_>, problems: &mut Problems) -> Option<FileDraft> {
    let main = tree(text, name, sources, problems)?;
    let mut included = Vec::new();
    if let Value::Map(entries) = &main.value
        && let Some(entry) = entries.iter().find(|entry| normal(&entry.key) == "include")
    {
        for (path, place) in include::files(&entry.node, sources, problems) {
            match sources.read(&path) {
                Ok(text) => included.extend(tree(&text, &path.display().to_string(), sources, problems)),
                Err(what) => problems.0.push(Problem::error(place, what)),
            }
        }
    }
    Some(FileDraft { main, included })
}

fn tree(text: &str, name: &str, sources: &mut Sources<'_>, problems: &mut Problems) -> Option<Node> {
    let path: Arc<str> = name.into();
    let at = |line, column| Place::File { path: Arc::clone(&path), line: Some(line), column: Some(column) };
    // On a thread of its own, for whom glibc's allocator keeps memory apart: a tree leaves as a whole what it took, and no
    // routes that stay lie between its parts.
    let parse = || yaml::parse(text, &at, Some(&mut |text| sources.expand(text)), problems);
    std::thread::scope(|scope| scope.spawn(parse).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn finish(draft: &FileDraft, sources: &mut Sources<'_>, problems: &mut Problems) -> (Settings, Read) {
    let mut fields = Fields::open(&draft.main, "configuration", problems);
    let (mut settings, unclear) = settings::read(&mut fields, &sources.base, problems);
    settings.middlewares.values_mut().for_each(|set| middleware_bodies::read_pages(set, sources, problems));
    let mut all = Draft::default();
    if let Some(node) = fields.get("routes") {
        all.add_routes(node, problems);
    }
    if let Some(node) = fields.get("backends") {
        all.add_backends(node, problems);
    }
    fields.get("include");
    settings::finish(fields, problems);
    for node in &draft.included {
        add_included(node, &mut all, problems);
    }
    let nodes = known_nodes(&settings, unclear);
    let read = static_routes::check(&all, &settings, &nodes, sources, problems);
    let of_own = |route: &Arc<RouteSpec>| {
        own_address::refusal(route, &settings).or_else(|| own_address::taken(route, &settings))
    };
    problems.0.extend(read.routes.iter().filter_map(of_own));
    (settings, read)
}

/// An included file holds `routes` and `backends`, or, as with GoDoxy, the routes themselves.
fn add_included<'a>(node: &'a Node, all: &mut Draft<'a>, problems: &mut Problems) {
    let Value::Map(entries) = &node.value else {
        if !node.is_null() {
            problems.0.push(node.wrong("is no mapping of routes"));
        }
        return;
    };
    let ours = |key: &str| matches!(normal(key).as_str(), "routes" | "backends") || key.starts_with("x-");
    if !entries.iter().all(|entry| ours(&entry.key)) {
        for entry in entries.iter().filter(|entry| FILE_KEYS.contains(&entry.key.as_str())) {
            let what = format!("`{}` belongs into the main file, not into an included one", entry.key);
            problems.0.push(Problem::error(entry.place.clone(), what));
        }
        all.add_routes(node, problems);
        return;
    }
    for entry in entries {
        match normal(&entry.key).as_str() {
            "routes" => all.add_routes(&entry.node, problems),
            "backends" => all.add_backends(&entry.node, problems),
            _ => {}
        }
    }
}

/// The nodes that backends may name.
fn known_nodes(settings: &Settings, unclear: Vec<NodeName>) -> BTreeMap<NodeName, Runs> {
    let runs = |spec: &NodeSpec| if spec.engine == EngineAddress::Process { Runs::Processes } else { Runs::Units };
    let known = settings.nodes.iter().map(|(name, spec)| (name.clone(), runs(spec)));
    known.chain(unclear.into_iter().map(|name| (name, Runs::Unclear))).collect()
}

//! What is wrong with segments, triggers and templates, without sending or changing anything.

use super::{
    message::{Medium, Purpose},
    template::{TemplateError, Templates},
};
use crate::{
    engine::{Session, SqlError},
    pipeline::{Problem, Project, Segment, Trigger},
};

/// Every fault of the project's segments and triggers, and of the templates that these use; for `tillstream check`.
/// Whether a segment's SQL is sound is the pipelines' own check: one that is not is passed over here.
pub async fn check(project: &Project, templates: &Templates, session: &Session) -> Vec<Problem> {
    let mut problems = Vec::new();
    for segment in project.segments() {
        let Ok(columns) = columns(session, segment).await else {
            continue;
        };
        let file_problem =
            |message: String| Problem { file: segment.sql.file.clone(), line: Some(segment.sql.line), message };
        if !columns.iter().any(|c| c == "person_id") {
            problems.push(file_problem(format!("segment \"{}\" yields no column person_id", segment.name)));
        }
        for trigger in project.triggers().filter(|t| t.segment == segment.name) {
            problems.extend(check_template(templates, trigger, &columns));
        }
    }
    problems.sort();
    problems
}

/// The columns that a template may use.
async fn columns(session: &Session, segment: &Segment) -> Result<Vec<String>, SqlError> {
    let fields = session.validate(&format!("SELECT * FROM {}", segment.table())).await?;
    Ok(fields.iter().map(|f| f.name().clone()).collect())
}

fn check_template(templates: &Templates, trigger: &Trigger, columns: &[String]) -> Vec<Problem> {
    // What evaluation takes from the row for itself is not handed to templates.
    let columns: Vec<&str> = columns.iter().map(String::as_str).filter(|c| *c != "person_id").collect();
    let marketing = Purpose::from(trigger.purpose) == Purpose::Marketing;
    match templates.check(&trigger.template, Medium::from(trigger.channel), marketing, &columns) {
        Ok(findings) => findings
            .into_iter()
            .map(|f| Problem {
                file: f.file,
                line: Some(f.line),
                message: format!("{} (trigger \"{}\")", f.what, trigger.name),
            })
            .collect(),
        Err(error @ TemplateError::Unknown { .. }) => {
            vec![trigger_problem(trigger, format!("trigger \"{}\": {error}", trigger.name))]
        }
        Err(error) => vec![trigger_problem(trigger, error.to_string())],
    }
}

fn trigger_problem(trigger: &Trigger, message: String) -> Problem {
    Problem { file: trigger.file.clone(), line: Some(trigger.line), message }
}

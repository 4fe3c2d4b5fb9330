//! `/v1/reports/…`: parameters into questions to the tables.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use pipeline::{View, clock};
use schemas::{Reason, Time, outcome::Status};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    ApiState, ask,
    auth::Reader,
    fields::{self, given},
    input::{Query, did_you_mean, many},
    problem::Problem,
    range::{self, basis, moment, word},
    wait,
};
use crate::report::{
    AsOf, Dimension, Directory, Filter, Filters, Match, Moment, PostbackQuery, PostbackRow, QueryError, Report,
    ReportQuery, resolve_range, time_zone,
};

#[derive(Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ConversionsReportQuery {
    /// An instant, or a date in `tz`. Default: the last 7 days.
    from: Option<String>,
    /// An instant (exclusive), or a date (included).
    to: Option<String>,
    /// IANA name. Default: the account's, if one is filtered, else UTC.
    tz: Option<String>,
    /// `click` (default): conversions at their click's time; `conversion`: at their own.
    basis: Option<String>,
    /// Any of `day hour month account program link dyn sub1…sub5 goal currency state`, with commas between.
    #[serde(deserialize_with = "many")]
    group_by: Vec<String>,
    /// Filters repeat: the same name = any of, empty = without one, `!value` = not.
    #[serde(deserialize_with = "many")]
    account: Vec<String>,
    #[serde(deserialize_with = "many")]
    program: Vec<String>,
    #[serde(deserialize_with = "many")]
    link: Vec<String>,
    #[serde(rename = "dyn", deserialize_with = "many")]
    dyn_: Vec<String>,
    #[serde(deserialize_with = "many")]
    sub1: Vec<String>,
    #[serde(deserialize_with = "many")]
    sub2: Vec<String>,
    #[serde(deserialize_with = "many")]
    sub3: Vec<String>,
    #[serde(deserialize_with = "many")]
    sub4: Vec<String>,
    #[serde(deserialize_with = "many")]
    sub5: Vec<String>,
    #[serde(deserialize_with = "many")]
    goal: Vec<String>,
    #[serde(deserialize_with = "many")]
    currency: Vec<String>,
    #[serde(deserialize_with = "many")]
    state: Vec<String>,
    /// A group key or a column, with `-` before it for falling.
    sort: Option<String>,
    #[param(value_type = Option<u32>)]
    limit: Option<String>,
    cursor: Option<String>,
    /// `json`
    format: Option<String>,
    /// `include`: clicks of bots, previews and prefetches count too.
    bots: Option<String>,
    /// A receipt, or `latest`; may be repeated.
    #[serde(deserialize_with = "many")]
    after: Vec<String>,
    /// How long to wait for `after`: default `2s`, at most `30s`.
    wait: Option<String>,
}

impl ConversionsReportQuery {
    fn read(&self, tenant: String, now: Time) -> Result<ReportQuery, Problem> {
        Ok(ReportQuery {
            tenant,
            now,
            from: moment(self.from.as_deref(), "?from")?,
            to: moment(self.to.as_deref(), "?to")?,
            tz: range::tz(self.tz.as_deref())?,
            basis: basis(self.basis.as_deref())?,
            group_by: group_by(&self.group_by)?,
            filters: self.filters()?,
            sort: given(self.sort.as_deref()).map(str::to_owned),
            limit: Some(fields::limit(self.limit.as_deref())?),
            cursor: given(self.cursor.as_deref()).map(str::to_owned),
            bots: match given(self.bots.as_deref()) {
                None | Some("exclude") => false,
                Some("include") => true,
                Some(other) => return Err(word(other, "?bots", &["include", "exclude"])),
            },
        })
    }

    fn filters(&self) -> Result<Filters, Problem> {
        for (texts, pointer) in [
            (&self.account, "?account"),
            (&self.program, "?program"),
            (&self.goal, "?goal"),
            (&self.currency, "?currency"),
        ] {
            range::never_without(texts, pointer)?;
        }
        range::states(&self.state)?;
        let folded = |texts: &[String]| texts.iter().map(|t| t.to_ascii_lowercase()).collect::<Vec<_>>();
        let upper = self.currency.iter().map(|c| c.to_ascii_uppercase()).collect::<Vec<_>>();
        let mut filters = BTreeMap::new();
        for (dimension, texts) in [
            (Dimension::Account, &self.account),
            (Dimension::Program, &self.program),
            (Dimension::Link, &self.link),
            (Dimension::Dyn, &self.dyn_),
            (Dimension::Sub1, &self.sub1),
            (Dimension::Sub2, &self.sub2),
            (Dimension::Sub3, &self.sub3),
            (Dimension::Sub4, &self.sub4),
            (Dimension::Sub5, &self.sub5),
            (Dimension::Goal, &folded(&self.goal)),
            (Dimension::Currency, &upper),
            (Dimension::State, &self.state),
        ] {
            if !texts.is_empty() {
                filters.insert(dimension, Filter(texts.iter().map(|text| Match::parse(text)).collect()));
            }
        }
        Ok(filters)
    }
}

fn group_by(texts: &[String]) -> Result<Vec<Dimension>, Problem> {
    let mut dimensions = Vec::new();
    for name in texts.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|name| !name.is_empty()) {
        let dimension: Dimension = name.parse().map_err(|e| {
            let near = did_you_mean(name, &Dimension::ALL.map(Dimension::name));
            Problem::field("?group_by", "unknown_dimension", format!("`{name}` is {e}{near}"))
        })?;
        if !dimensions.contains(&dimension) {
            dimensions.push(dimension);
        }
    }
    Ok(dimensions)
}

pub fn refused(error: QueryError) -> Problem {
    match error {
        QueryError::Refused { parameter, code, detail } => Problem::field(format!("?{parameter}"), code, detail),
        QueryError::TooLong => Problem::too_long(),
        QueryError::Away(error) => {
            tracing::warn!(error = format!("{error:#}"), "the database of the report tables does not answer");
            Problem::unavailable("The report tables cannot be read now: try again.").retry_after(5)
        }
        QueryError::Failed(error) => Problem::internal(&error),
    }
}

/// Clicks and conversions, by what was asked for.
#[utoipa::path(get, path = "/v1/reports/conversions", tag = "reports", params(ConversionsReportQuery),
    responses((status = 200, body = Report), (status = "4XX", body = Problem)))]
pub async fn conversions(
    Reader(caller): Reader,
    State(api): State<ApiState>,
    Query(query): Query<ConversionsReportQuery>,
) -> Result<Json<Report>, Problem> {
    range::json_only(query.format.as_deref())?;
    let question = query.read(caller.tenant, clock::now())?;
    wait::until_visible(&api, &query.after, query.wait.as_deref()).await?;
    report(&api, question).await.map(Json)
}

async fn report(api: &ApiState, question: ReportQuery) -> Result<Report, Problem> {
    ask(api, move |inner| {
        let view = inner.catalog.view();
        inner.reports.conversions_report(&Directory::of(&view, &question.tenant), &question)
    })
    .await
}

/// Whether any click was ever made under this account or link, flagged ones too.
pub async fn has_clicks(api: &ApiState, tenant: &str, dimension: &str, id: &str) -> Result<bool, Problem> {
    let dimension: Dimension = dimension.parse().map_err(anyhow::Error::from)?;
    let question = ReportQuery {
        tenant: tenant.to_owned(),
        now: clock::now(),
        from: Some(Moment::Instant(Time::from_ms(0))),
        to: Some(Moment::Instant(Time::from_ms(i64::MAX))),
        filters: BTreeMap::from([(dimension, Filter(vec![Match::Is(id.to_owned())]))]),
        limit: Some(1),
        bots: true,
        ..ReportQuery::default()
    };
    Ok(report(api, question).await?.totals.clicks.unwrap_or_default() > 0)
}

#[derive(Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PostbacksReportQuery {
    /// An instant, or a date in `tz`. Default: the last 7 days.
    from: Option<String>,
    /// An instant (exclusive), or a date (included).
    to: Option<String>,
    /// IANA name. Default: the account's, if one is filtered, else UTC.
    tz: Option<String>,
    #[serde(deserialize_with = "many")]
    account: Vec<String>,
    /// `converted`, `updated`, `waiting`, `duplicate`, `rejected`, `withdrawn` or `test`; `!value` = not
    #[serde(deserialize_with = "many")]
    outcome: Vec<String>,
    /// A reason code.
    #[serde(deserialize_with = "many")]
    reason: Vec<String>,
    /// Our click id, or the name as it was received; empty = hits that name none.
    #[serde(deserialize_with = "many")]
    click: Vec<String>,
    /// Empty = hits without one; `!value` = not.
    #[serde(deserialize_with = "many")]
    tid: Vec<String>,
    #[serde(deserialize_with = "many")]
    player: Vec<String>,
    /// Text anywhere in the stored request, the click name, the ids or the hint.
    q: Option<String>,
    #[param(value_type = Option<u32>)]
    limit: Option<String>,
    cursor: Option<String>,
    /// `json`
    format: Option<String>,
    /// A receipt, or `latest`; may be repeated.
    #[serde(deserialize_with = "many")]
    after: Vec<String>,
    /// How long to wait for `after`: default `2s`, at most `30s`.
    wait: Option<String>,
}

impl PostbacksReportQuery {
    fn read(&self, view: &View, tenant: String, now: Time) -> Result<PostbackQuery, Problem> {
        let text = |text: &Option<String>| given(text.as_deref()).map(str::to_owned);
        let accounts = range::accounts(view, &tenant, &self.account)?;
        let tz = range::zone(view, &tenant, range::tz(self.tz.as_deref())?, &accounts);
        let zone = time_zone(&tz).map_err(refused)?;
        let (from, to) = (moment(self.from.as_deref(), "?from")?, moment(self.to.as_deref(), "?to")?);
        let range = resolve_range(from.as_ref(), to.as_ref(), &zone, now).map_err(refused)?;
        let reason = reason_filter(&self.reason)?;
        let all = Reason::ALL.iter().copied();
        let reasons = reason.positive().map(|codes| all.filter(|reason| codes.contains(&reason.code())).collect());
        Ok(PostbackQuery {
            tenant,
            now,
            from: Some(Moment::Instant(range.from)),
            to: Some(Moment::Instant(range.to)),
            tz: Some(tz),
            accounts,
            outcomes: range::choose(&self.outcome, "?outcome", &Status::ALL, Status::code)?,
            reasons: reasons.unwrap_or_default(),
            reason,
            click: range::filter(&self.click),
            tid: range::filter(&self.tid),
            player: range::filter(&self.player),
            q: text(&self.q),
            limit: fields::limit(self.limit.as_deref())?,
            cursor: text(&self.cursor),
        })
    }
}

fn reason_filter(texts: &[String]) -> Result<Filter, Problem> {
    let known: Vec<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    let filter = range::filter(texts);
    for test in &filter.0 {
        if let Match::Is(text) | Match::Not(text) = test
            && !known.contains(&text.as_str())
        {
            return Err(word(text, "?reason", &known));
        }
    }
    Ok(filter)
}

/// The postback report: every hit, raw, newest first.
#[derive(Serialize, ToSchema)]
pub struct PostbacksReport {
    rows: Vec<PostbackRow>,
    as_of: AsOf,
    query: PostbacksUnderstood,
    cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct PostbacksUnderstood {
    from: Time,
    /// Exclusive.
    to: Time,
    tz: String,
    account: Vec<String>,
    outcome: Vec<String>,
    reason: Vec<String>,
    click: Vec<String>,
    tid: Vec<String>,
    player: Vec<String>,
    q: Option<String>,
    limit: usize,
}

/// Every hit, raw, newest first.
#[utoipa::path(get, path = "/v1/reports/postbacks", tag = "reports", params(PostbacksReportQuery),
    responses((status = 200, body = PostbacksReport), (status = "4XX", body = Problem)))]
pub async fn postbacks(
    Reader(caller): Reader,
    State(api): State<ApiState>,
    Query(query): Query<PostbacksReportQuery>,
) -> Result<Json<PostbacksReport>, Problem> {
    range::json_only(query.format.as_deref())?;
    let question = query.read(&api.catalog.view(), caller.tenant, clock::now())?;
    let instant = |moment: &Option<Moment>| match moment {
        Some(Moment::Instant(time)) => *time,
        Some(Moment::Date(_)) | None => Time::default(),
    };
    let understood = PostbacksUnderstood {
        from: instant(&question.from),
        to: instant(&question.to),
        tz: question.tz.clone().unwrap_or_default(),
        account: query.account.clone(),
        outcome: query.outcome.clone(),
        reason: query.reason.clone(),
        click: query.click.clone(),
        tid: query.tid.clone(),
        player: query.player.clone(),
        q: question.q.clone(),
        limit: question.limit,
    };
    wait::until_visible(&api, &query.after, query.wait.as_deref()).await?;
    let page = ask(&api, move |inner| inner.reports.postbacks(&question)).await?;
    Ok(Json(PostbacksReport { rows: page.items, as_of: page.as_of, query: understood, cursor: page.cursor }))
}

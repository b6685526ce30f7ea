-- A service as it looks after a month: eleven sources, most of them well, some not; alerts, backups, drills. Moments are seen from now.
CREATE FUNCTION pg_temp.run_id(task text, at timestamptz) RETURNS uuid LANGUAGE sql AS
$$ SELECT (left(oa.uuid_floor(at)::text, 14) || '7' || substr(oa.uuid_floor(at)::text, 16, 8) || '-' || right(md5(task || at), 12))::uuid $$;

CREATE FUNCTION pg_temp.ran(task text, at timestamptz, seconds float8, status text, fetched bigint, inserted bigint, updated bigint, rejected bigint,
                            error text DEFAULT NULL, kind text DEFAULT NULL, attempts int DEFAULT 1) RETURNS void LANGUAGE sql AS
$$ INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, status, started_at, finished_at, attempts, fetched,
                        inserted, updated, unchanged, rejected, error_kind, error_message)
   VALUES (pg_temp.run_id(task, at), 'oa-crawl', task, 'due', 'futures-01', 'm', 'b', 4711, 1, '0.1.0', status, at, at + make_interval(secs => seconds),
           attempts, fetched, inserted, updated, greatest(fetched - inserted - updated - rejected, 0), rejected, kind, error) $$;

INSERT INTO oa.tasks (name, tool, title, schedule, days, sessions) VALUES
    ('fangqi-morning', 'oa-crawl', '方期看盘-早盘提示', '50 8 * * *', 'trading', '{}'),
    ('fangqi-night', 'oa-crawl', '方期看盘-夜盘提示', '50 20 * * *', 'night', '{}'),
    ('jiaoyikecha-blueprint', 'oa-crawl', '交易可查-每日蓝图', '0 19 * * *', 'trading', '{}'),
    ('jiaoyikecha-positions', 'oa-crawl', '交易可查-席位持仓', '30 19 * * *', 'trading', '{}'),
    ('openvlab-flow', 'oa-crawl', 'openvlab-期权流向', '* * * * *', 'all', '{day,night}'),
    ('rdqh-indicators', 'oa-crawl', '容大期货-技术指标', '5 21 * * *', 'trading', '{}'),
    ('rongda-positions', 'oa-crawl', '融达期货-机构持仓', '0 21 * * *', 'trading', '{}'),
    ('rongda-structure', 'oa-crawl', '融达期货-期限结构', '0 15 * * *', 'trading', '{}'),
    ('zhihui-full-view', 'oa-crawl', '智汇期讯-多空全景', '*/30 * * * *', 'all', '{}'),
    ('zhihui-reports', 'oa-crawl', '智汇期讯-研报淘金', '*/30 * * * *', 'all', '{}'),
    ('zhihui-varieties', 'oa-crawl', '智汇期讯-品种列表', '10 8 * * *', 'all', '{}');
UPDATE oa.tasks SET collects = true, backfills = name <> 'openvlab-flow';

-- Every day at a time of Shanghai, on weekdays.
CREATE FUNCTION pg_temp.daily(task text, at time, records int, weekdays bool, until timestamptz DEFAULT now()) RETURNS void LANGUAGE sql AS
$$ SELECT pg_temp.ran(task, t, 2 + (hashtext(task || t) & 7), 'success', n, n, 0, 0)
   FROM (SELECT t, records + (hashtext(task || t) & 15) % greatest(records / 20, 1) AS n
         FROM (SELECT (d::date + at) AT TIME ZONE 'Asia/Shanghai' AS t, d
               FROM generate_series((now() AT TIME ZONE 'Asia/Shanghai')::date - 44, (now() AT TIME ZONE 'Asia/Shanghai')::date, interval '1 day') d) x
         WHERE t < until AND (NOT weekdays OR extract(isodow FROM d) < 6)) y $$;
DO $$ BEGIN
    PERFORM pg_temp.daily('fangqi-morning', '08:50', 24, true);
    PERFORM pg_temp.daily('fangqi-night', '20:50', 18, true);
    PERFORM pg_temp.daily('jiaoyikecha-blueprint', '19:00', 1, true);
    PERFORM pg_temp.daily('jiaoyikecha-positions', '19:30', 1420, true, now() - interval '4 days');
    PERFORM pg_temp.daily('rdqh-indicators', '21:05', 68, true, now() - interval '2 hours');
    PERFORM pg_temp.daily('rongda-positions', '21:00', 2434, true, now() - interval '30 hours');
    PERFORM pg_temp.daily('rongda-structure', '15:00', 312, true);
    PERFORM pg_temp.daily('zhihui-varieties', '08:10', 75, false);
    PERFORM pg_temp.ran('zhihui-full-view', t, 1.2, 'success', 75, 75, 0, 0)
        FROM generate_series(date_trunc('hour', now()) - interval '40 days', now() - interval '1 minute', interval '30 minutes') t;
    -- One in thirteen fails and heals by itself; two records a run are bad.
    PERFORM pg_temp.ran('zhihui-reports', t, CASE WHEN bad THEN 184 ELSE 3.4 END, CASE WHEN bad THEN 'failed' ELSE 'success' END,
                        CASE WHEN bad THEN 0 ELSE 96 END, CASE WHEN bad THEN 0 ELSE 3 END, 0, CASE WHEN bad THEN 0 ELSE 2 END,
                        CASE WHEN bad THEN 'GET https://hzzhqx.com/api/report/list: HTTP 502 (Bad Gateway)' END, CASE WHEN bad THEN 'http_5xx' END,
                        CASE WHEN bad THEN 4 ELSE 1 END)
        FROM (SELECT t, extract(epoch FROM t)::bigint / 1800 % 13 = 3 AND t < now() - interval '1 hour' AS bad
              FROM generate_series(date_trunc('hour', now()) - interval '40 days', now() - interval '1 minute', interval '30 minutes') t) x;
    PERFORM pg_temp.ran('openvlab-flow', t, 2.1, 'success', 40, 40, 0, 0)
        FROM (SELECT t, t AT TIME ZONE 'Asia/Shanghai' AS l
              FROM generate_series(date_trunc('minute', now()) - interval '3 days', now() - interval '1 minute', interval '1 minute') t) x
        WHERE extract(isodow FROM l) < 6
          AND (l::time BETWEEN '09:00' AND '11:29' OR l::time BETWEEN '13:00' AND '14:59' OR l::time >= '21:00' OR l::time < '02:30');
END $$;

-- The site's login is over.
SELECT pg_temp.ran('jiaoyikecha-positions', now() - interval '26 hours' * n, 4, 'failed', 0, 0, 0, 0,
                   'POST https://www.jiaoyikecha.com/ajax/login.php: the site refused the login (code 1003 "密码错误或账号已过期"); renew the account', 'auth')
FROM generate_series(1, 3) n;
-- A page of 1,217 out of 2,434.
SELECT pg_temp.ran('rongda-positions', now() - interval '5 hours', 31, 'partial', 1217, 1217, 0, 4,
                   'the site says 2434 records and gave 1217', 'partial', 4);
SELECT pg_temp.ran('rongda-structure', now() - interval '3 hours', 5, 'success', 131, 131, 0, 0);

-- What each run says of its data.
INSERT INTO oa.quality (run_id, task, day, expected, collected, completeness, duplicates, fresh, score, findings)
SELECT id, task, (started_at AT TIME ZONE 'Asia/Shanghai')::date, CASE WHEN status = 'partial' THEN fetched * 2 ELSE fetched END, fetched,
       CASE WHEN status = 'partial' THEN 0.5 ELSE 1 END, 0, true, CASE WHEN status = 'partial' THEN 50 ELSE 100 END,
       CASE WHEN status = 'partial' THEN '["收到 1217 条，网站称有 2434 条", "第 13 页与第 12 页内容相同"]' ELSE '[]' END::jsonb
FROM oa.runs WHERE status IN ('success', 'partial');

INSERT INTO oa.attempts
SELECT r.id, n, r.started_at + (n - 1) * interval '60 seconds', r.started_at + (n - 1) * interval '60 seconds' + interval '1.5 seconds',
       CASE WHEN n = r.attempts THEN r.status ELSE 'failed' END, 'http_5xx', 'GET https://hzzhqx.com/api/report/list: HTTP 502 (Bad Gateway)'
FROM oa.runs r, generate_series(1, r.attempts) n WHERE r.attempts > 1;
INSERT INTO oa.raw (run_id, seq, attempt, url, status, content_type, sha256, size_bytes, stored_bytes, fetched_at, part)
SELECT id, n, 1, 'https://www.rongdaqh.com/api/positions?page=' || n || '&token=abcdef123456', 200, 'application/json; charset=utf-8',
       encode(sha256(('page' || n)::bytea), 'hex'), 48211 + n, 6123, started_at + n * interval '1 second', NULL
FROM oa.runs, generate_series(1, 13) n WHERE task = 'rongda-positions' AND status = 'partial';
INSERT INTO oa.rejects (run_id, seq, task, target, source_key, field, reason, record)
SELECT id, n, task, 'institution_positions', 'rb2510/' || n, 'net_position', 'not a number: "--"',
       jsonb_build_object('variety', 'rb2510', 'institution', '国泰君安', 'net_position', '--', 'date', '2025-12-01')
FROM oa.runs, generate_series(1, 4) n WHERE task = 'rongda-positions' AND status = 'partial';

-- The state of each task, as its runs left it.
UPDATE oa.tasks t SET last_run_id = r.id, last_status = r.status, last_started_at = r.started_at, last_finished_at = r.finished_at,
    last_error = r.error_message,
    last_success_at = (SELECT max(finished_at) FROM oa.runs s WHERE s.task = t.name AND s.status = 'success'),
    consecutive_failures = CASE WHEN r.status = 'failed' THEN 3 ELSE 0 END,
    failing_since = CASE WHEN r.status = 'failed' THEN now() - interval '78 hours' END,
    next_due_at = now() + CASE t.name WHEN 'openvlab-flow' THEN interval '20 seconds' WHEN 'zhihui-full-view' THEN interval '12 minutes'
                                      WHEN 'zhihui-reports' THEN interval '12 minutes' ELSE interval '9 hours' END
FROM (SELECT DISTINCT ON (task) * FROM oa.runs ORDER BY task, id DESC) r WHERE r.task = t.name;
-- Was due an hour ago.
INSERT INTO oa.slots (task, due_at, day) VALUES ('rdqh-indicators', now() - interval '70 minutes', now()::date);

INSERT INTO oa.alerts (id, fingerprint, rule, task, run_id, severity, kind, title, body, created_at, settled_at)
SELECT pg_temp.run_id('alert' || a.rule, a.at), a.rule || ':' || a.task, a.rule, a.task, t.last_run_id, a.severity, a.kind, a.title, a.body, a.at, a.at + interval '2 seconds'
FROM (VALUES
    ('run_failed', 'jiaoyikecha-positions', 'critical', 'problem', '【故障】交易可查-席位持仓 采集失败',
     E'**【故障】交易可查-席位持仓 采集失败**\n\n- 原因：对方网站拒绝登录（密码错误或账号已过期）\n- 已尝试：1 次，登录被拒不再重试\n- 影响：institution_positions 没有新数据\n- 处理：到网站确认账号是否到期；更新 .env 中的密码后执行 oa-crawl run jiaoyikecha-positions\n', now() - interval '78 hours'),
    ('run_partial', 'rongda-positions', 'warning', 'problem', '【警告】融达期货-机构持仓 数据不完整',
     E'**【警告】融达期货-机构持仓 数据不完整**\n\n- 原因：收到 1217 条，网站称有 2434 条\n- 影响：institution_positions 缺 1217 条\n- 处理：用 oa-crawl run rongda-positions --dry-run 查看网站现在给出什么\n', now() - interval '5 hours'),
    ('run_missed', 'rdqh-indicators', 'critical', 'problem', '【故障】容大期货-技术指标 没有按时运行',
     E'**【故障】容大期货-技术指标 没有按时运行**\n\n- 应于 21:05 运行，没有任何启动记录\n- 处理：检查 cron 是否在运行、crontab 中是否有 oa-crawl run --due\n', now() - interval '60 minutes'),
    ('run_failed', 'zhihui-reports', 'critical', 'problem', '【故障】智汇期讯-研报淘金 采集失败',
     E'**【故障】智汇期讯-研报淘金 采集失败**\n\n- 原因：对方网站自身故障（HTTP 502）\n- 处理：等待对方恢复，下次会自动再采\n', now() - interval '9 hours'),
    ('run_failed', 'zhihui-reports', 'info', 'recovery', '【恢复】智汇期讯-研报淘金 恢复正常',
     E'**【恢复】智汇期讯-研报淘金 恢复正常**\n\n- 持续 30 分钟，其间失败 1 次\n', now() - interval '8 hours 30 minutes')
) a (rule, task, severity, kind, title, body, at) JOIN oa.tasks t ON t.name = a.task ORDER BY a.at;
INSERT INTO oa.deliveries (alert_id, channel, state, tries, first_try_at, sent_at) SELECT id, 'ops', 'sent', 1, created_at, created_at + interval '1 second' FROM oa.alerts;
INSERT INTO oa.incidents (fingerprint, rule, task, severity, first_alert, last_alert, opened_at, notified_at, resolved_at)
SELECT DISTINCT ON (fingerprint) fingerprint, rule, task, severity, id, id, created_at, created_at, CASE WHEN kind = 'recovery' THEN created_at END
FROM oa.alerts ORDER BY fingerprint, created_at DESC;
UPDATE oa.incidents SET acknowledged_by = 'wang', acknowledged_at = now(), note = '已联系对方技术' WHERE fingerprint = 'run_partial:rongda-positions';

INSERT INTO oa.backups (id, run_id, repository, kind, level, parent_id, host, database, server_version, system_id, timeline, start_lsn, end_lsn,
                        restorable_from, restorable_to, started_at, finished_at, files, size_bytes, added_bytes, checked, checked_at)
SELECT md5('full' || d), gen_random_uuid(), '/var/backups/oa', 'physical', 'full', NULL, 'futures-01', 'futures', 150006, '7', 1, '0/1', '0/2',
       t, t, t - interval '4 minutes', t, 1400, 5368709120 + d * 4000000::bigint, 210000000, CASE WHEN d < 2 THEN 'structure' ELSE 'data' END, t + interval '1 hour'
FROM (SELECT d, now() - d * interval '1 day' - interval '8 hours' AS t FROM generate_series(0, 13) d) x;
INSERT INTO oa.backups (id, run_id, repository, kind, level, parent_id, host, database, server_version, system_id, timeline, start_lsn, end_lsn,
                        restorable_from, restorable_to, started_at, finished_at, files, size_bytes, added_bytes)
SELECT md5('incremental' || n), gen_random_uuid(), '/var/backups/oa', 'physical', 'incremental', md5('full0'), 'futures-01', 'futures', 150006, '7', 1, '0/2', '0/3',
       now() - interval '1 hour' * n - interval '80 minutes', now() - interval '1 hour' * n - interval '20 minutes', now() - interval '1 hour' * n - interval '20 minutes',
       now() - interval '1 hour' * n - interval '19 minutes', 3, 16777216 * 3, 9000000
FROM generate_series(0, 5) n;
INSERT INTO oa.drills (run_id, backup_id, repository, host, target, started_at, finished_at, ok, rto_seconds, rpo_seconds, tables, checks, error)
SELECT gen_random_uuid(), md5('full1'), '/var/backups/oa', 'futures-01', t, t, t + interval '5 minutes', ok, 268.4 + n, 1310, 13, '[]', error
FROM (VALUES (0, now() - interval '6 days', true, NULL), (1, now() - interval '37 days', true, NULL),
             (2, now() - interval '66 days', false, 'market_full_view has 10500 rows, 10575 were recorded')) x (n, t, ok, error)
ORDER BY t;
INSERT INTO oa.repositories (repository, measured_at, size_bytes, backups, free_bytes)
SELECT '/var/backups/oa', now() - d * interval '1 day', 9000000000 - d * 61000000::bigint + (hashtext('s' || d) & 31) * 9000000::bigint, 30, 118000000000
FROM generate_series(0, 60) d;

INSERT INTO oa.watches (what, host, at, ok) VALUES ('check', 'vm', now() - interval '20 seconds', true), ('due', 'vm', now() - interval '30 seconds', true);

-- What each source owed for each day of thirteen weeks. Trading days are weekdays here; the days of today are not over.
INSERT INTO oa.days (task, day, expected, state, run_id, collected_at, records, announced, usual, evidence, content)
SELECT task, d::date, true, 'complete', pg_temp.run_id(task, d), d + interval '15 hours', records, records, records, 'total', sha256((task || d)::bytea)
FROM (VALUES ('fangqi-morning', 24, true), ('fangqi-night', 18, true), ('jiaoyikecha-blueprint', 1, true), ('jiaoyikecha-positions', 1420, true),
             ('openvlab-flow', 9600, true), ('rdqh-indicators', 68, true), ('rongda-positions', 2434, true), ('rongda-structure', 312, true),
             ('zhihui-full-view', 3600, false), ('zhihui-reports', 96, false), ('zhihui-varieties', 75, false)) s (task, records, weekdays),
     generate_series((now() AT TIME ZONE 'Asia/Shanghai')::date - 90, (now() AT TIME ZONE 'Asia/Shanghai')::date, interval '1 day') d
WHERE NOT weekdays OR extract(isodow FROM d) < 6;
UPDATE oa.days SET state = 'pending', run_id = NULL, collected_at = NULL, records = NULL, evidence = NULL, content = NULL
WHERE day = (now() AT TIME ZONE 'Asia/Shanghai')::date;
-- The n-th owed day before today of a task.
CREATE FUNCTION pg_temp.hole(of text, n int, becomes text, why text) RETURNS void LANGUAGE sql AS $$
WITH at AS (
    SELECT day FROM oa.days WHERE task = of AND day < (now() AT TIME ZONE 'Asia/Shanghai')::date ORDER BY day DESC LIMIT 1 OFFSET n - 1),
slot AS (
    INSERT INTO oa.slots (task, due_at, day, state, reason, closed_at)
    SELECT of, (day + time '15:00') AT TIME ZONE 'Asia/Shanghai', day, CASE WHEN becomes = 'unfetchable' THEN 'unfetchable' ELSE 'missed' END, why, now()
    FROM at WHERE becomes IN ('missing', 'unfetchable'))
UPDATE oa.days SET state = becomes, run_id = CASE WHEN becomes IN ('missing', 'unfetchable') THEN NULL ELSE run_id END,
    records = CASE becomes WHEN 'partial' THEN records / 2 WHEN 'stale' THEN records END, reported_at = now() - interval '1 day',
    evidence = NULL, content = NULL
FROM at WHERE task = of AND oa.days.day = at.day $$;
SELECT pg_temp.hole('jiaoyikecha-positions', n, 'failed', NULL) FROM generate_series(1, 3) n;
SELECT pg_temp.hole('rongda-positions', 1, 'partial', NULL), pg_temp.hole('rongda-positions', 22, 'stale', NULL);
SELECT pg_temp.hole('rdqh-indicators', n, 'missing', 'nothing started it') FROM generate_series(4, 5) n;
SELECT pg_temp.hole('openvlab-flow', n, 'unfetchable', 'the site shows only today') FROM generate_series(30, 33) n;
-- A hole that was closed.
UPDATE oa.days SET reported_at = now() - interval '5 days', filled_at = now() - interval '4 days'
WHERE task = 'fangqi-night' AND day = (SELECT day FROM oa.days WHERE task = 'fangqi-night' ORDER BY day DESC LIMIT 1 OFFSET 6);
-- Each has done since what it was to do; but for one that is late.
INSERT INTO oa.slots (task, due_at, day, state, run_id, closed_at)
SELECT name, now() - CASE name WHEN 'rdqh-indicators' THEN interval '25 hours' ELSE interval '6 hours' END, current_date, 'done', last_run_id, now()
FROM oa.tasks;
INSERT INTO oa.starts (what, host, day, starts, failures, first_at, last_at)
SELECT what, 'vm', current_date, 900, 0, now() - interval '15 hours', now() - interval '25 seconds' FROM (VALUES ('check'), ('due')) w (what);

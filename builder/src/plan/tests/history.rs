//! The lines of history, as a BuildKit of Docker 28.5 writes them.

use super::*;

fn lines(lines: &str) -> Vec<String> {
    let bench = Bench::new().file("f", "").build_arg("G", "given");
    bench.plan(&format!("FROM scratch\n{lines}\n")).lines().into_iter().map(str::to_owned).collect()
}

#[test]
fn each_instruction_leaves_its_line() {
    let cases = [
        ("MAINTAINER a <b>", "MAINTAINER a <b>"),
        ("ENV A=1 B=\"x y\"", "ENV A=1 B=x y"),
        ("LABEL a=\"b c\" d=", "LABEL a=b c d="),
        ("USER \"\"x", "USER x"),
        ("WORKDIR /w/", "WORKDIR /w/"),
        ("WORKDIR w/", "WORKDIR /w"),
        ("WORKDIR /", "WORKDIR /"),
        ("EXPOSE 80 53/udp 8000-8001/TCP 80/tcp", "EXPOSE [53/udp 80/tcp 80/tcp 8000/tcp 8001/tcp]"),
        ("EXPOSE 5:6 127.0.0.1:80:90", "EXPOSE [90/tcp 6/tcp]"),
        ("VOLUME /a /b", "VOLUME [/a /b]"),
        ("STOPSIGNAL 9", "STOPSIGNAL 9"),
        ("CMD a \"b\"", r#"CMD ["/bin/sh" "-c" "a \"b\""]"#),
        ("ENTRYPOINT []", "ENTRYPOINT []"),
        ("SHELL [\"a\", \"b c\"]", "SHELL [a b c]"),
        ("HEALTHCHECK NONE", r#"HEALTHCHECK &{["NONE"] "0s" "0s" "0s" "0s" '\x00'}"#),
        ("ARG A", "ARG A"),
        ("ARG A=1 B='x y' C", "ARG A=1 B=x y C"),
        ("ARG G=default", "ARG G=given"),
        ("ARG TARGETARCH", "ARG TARGETARCH=amd64"),
        ("RUN a  $b", "RUN /bin/sh -c a  $b # buildkit"),
        ("RUN [\"a\", \"b c\"]", "RUN a b c # buildkit"),
        ("RUN <<E\na\nb\nE", "RUN /bin/sh -c a\nb\n # buildkit"),
        ("COPY f /x/", "COPY f /x/ # buildkit"),
        ("COPY --chown=1:2 --chmod=0644 f $NONE.", "COPY --chown=1:2 --chmod=0644 f . # buildkit"),
        ("COPY none* /x", "COPY none* /x # buildkit"),
        ("COPY --exclude=f --link --parents --chown=1 f /x/", "COPY --parents --chown=1 f /x/ # buildkit"),
        ("COPY --chmod=600 --parents=false --link=false f /x/", "COPY --chmod=600 f /x/ # buildkit"),
        ("ADD --link --unpack=false --exclude=x f /x/", "ADD f /x/ # buildkit"),
        ("ADD [\"f\", \"/a b\"]", "ADD f /a b # buildkit"),
    ];
    for (line, expected) in cases {
        assert_eq!(lines(line), [expected], "{line}");
    }
}

#[test]
fn a_trigger_leaves_its_line_where_it_is_pulled() {
    assert!(lines("ONBUILD RUN a").is_empty());
    let plan = planned("FROM scratch AS a\nONBUILD ENV A=1\nFROM a\nLABEL b=1\n");
    assert_eq!(plan.lines(), ["ENV A=1", "LABEL b=1"]);
}

#[test]
fn a_run_names_the_arguments_declared_so_far_with_their_effective_values() {
    let text = "ARG A=1 B\nENV A=env\nRUN x";
    assert_eq!(lines(text)[2], "RUN |2 A=env B= /bin/sh -c x # buildkit");
    let text = "ARG A=1\nARG A=2\nRUN x";
    assert_eq!(lines(text)[2], "RUN |1 A=2 /bin/sh -c x # buildkit");
}

#[test]
fn a_stage_lists_the_lines_and_the_arguments_of_those_below_it() {
    let plan = planned("FROM scratch AS a\nARG A=1\nWORKDIR /w\nFROM a\nARG B=2\nRUN x\n");
    assert_eq!(plan.lines(), ["ARG A=1", "WORKDIR /w", "ARG B=2", "RUN |2 A=1 B=2 /bin/sh -c x # buildkit"]);
    let steps: Vec<_> = plan.target().history.iter().map(|line| line.step).collect();
    assert_eq!(steps, [None, Some((0, 0)), None, Some((1, 0))]);
}

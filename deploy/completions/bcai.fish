# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_bcai_global_optspecs
    string join \n home= c/config= json q/quiet h/help V/version
end

function __fish_bcai_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_bcai_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_bcai_using_subcommand
    set -l cmd (__fish_bcai_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c bcai -n "__fish_bcai_needs_command" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_needs_command" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_needs_command" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_needs_command" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_needs_command" -s h -l help -d 'Print help'
complete -c bcai -n "__fish_bcai_needs_command" -s V -l version -d 'Print version'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "init" -d 'Create a network of your own, or join one'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "daemon" -d 'Start this machine\'s node'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "stop" -d 'Stop this machine\'s node'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "restart" -d 'Restart this machine\'s node without ending its mounts'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "snapshot" -d 'Build a snapshot of a directory in the local store'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "publish" -d 'Publish a directory or a snapshot as a version of a dataset'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "tag" -d 'Make a tag of a dataset name another of its versions'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "yank" -d 'Withdraw a version of a dataset, for a reason that everybody sees'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "mount" -d 'Mount a version of a dataset on a directory'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "remount" -d 'Put another version in place of what is mounted on a directory'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "unmount" -d 'Detach a mounted dataset'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "list" -d 'List datasets and their versions'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "log" -d 'Show the signed history of the network, or of one dataset; prove it to others'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "ls" -d 'List a directory of a dataset without mounting it'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "cat" -d 'Print a file of a dataset'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "export" -d 'Write a dataset out as ordinary files'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "bundle" -d 'Carry versions in one file to machines that no network reaches'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "diff" -d 'Show what is different between two versions of a dataset'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "prefetch" -d 'Fetch a dataset, or a part of it, before it is read'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "pin" -d 'Fetch a dataset, or a part of it, and keep it from being evicted'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "unpin" -d 'Let what was pinned be evicted again'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "cache" -d 'Show what fills the cache, what is pinned, and what the cache was good for'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "gc" -d 'Take away what was published here and is no longer wanted'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "verify" -d 'Recheck certificate, manifests and every chunk'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "keys" -d 'This machine\'s key: show it, make one, put another in its place; give rights to others\''
complete -c bcai -n "__fish_bcai_needs_command" -f -a "validator" -d 'Who decides the network: show it, and take part'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "status" -d 'Show the node at a glance'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "top" -d 'Watch the node: mounts, reads, cache, transfers, peers, logs and alerts, every second'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "trace" -d 'Show what programs ask of a mount, as it happens'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "peers" -d 'Show whom this node talks to, and say whom it shall talk to and how fast'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "alerts" -d 'Show what is wrong with this node and what to do, and take note of it'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "doctor" -d 'Check this machine and this node, and print the remedy for what is wrong'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "bugreport" -d 'Collect what is needed to look into a problem, without secrets, in one text file'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "demo" -d 'Show it all: two nodes on this machine, one publishes, the other mounts and reads'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "completions" -d 'Print a completion script for a shell'
complete -c bcai -n "__fish_bcai_needs_command" -f -a "man" -d 'Print a manual page'
complete -c bcai -n "__fish_bcai_using_subcommand init" -l join -d 'Any bcai:// URI of the network to join' -r
complete -c bcai -n "__fish_bcai_using_subcommand init" -l validators -d 'Keys of the validators that decide the new network, that of this node among them, separated by commas' -r
complete -c bcai -n "__fish_bcai_using_subcommand init" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand init" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand init" -l passphrase -d 'Lock the new key with a passphrase, which every start of the node asks for'
complete -c bcai -n "__fish_bcai_using_subcommand init" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand init" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand init" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand daemon" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand daemon" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand daemon" -l foreground -d 'Stay in the foreground and log to stderr'
complete -c bcai -n "__fish_bcai_using_subcommand daemon" -l supervised -d 'What the supervisor runs'
complete -c bcai -n "__fish_bcai_using_subcommand daemon" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand daemon" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand daemon" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand stop" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand stop" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand stop" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand stop" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand stop" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand restart" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand restart" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand restart" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand restart" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand restart" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand snapshot" -l chunking -d 'How files are cut: auto (cdc:64K that knows tar, zip, safetensors and Parquet), cdc:64K, cdc:256K, cdc:1M, fixed:1M, fixed:2M or fixed:4M' -r
complete -c bcai -n "__fish_bcai_using_subcommand snapshot" -l compress -d 'How chunks are compressed: none, lz4 or zstd:LEVEL' -r
complete -c bcai -n "__fish_bcai_using_subcommand snapshot" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand snapshot" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand snapshot" -l skip-special -d 'Leave out sockets, FIFOs and devices instead of refusing the directory'
complete -c bcai -n "__fish_bcai_using_subcommand snapshot" -l in-place -d 'Serve larger files from where they are instead of storing their content; they must not be changed from then on'
complete -c bcai -n "__fish_bcai_using_subcommand snapshot" -l paranoid -d 'Read all files, also those that have not changed since an earlier snapshot'
complete -c bcai -n "__fish_bcai_using_subcommand snapshot" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand snapshot" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand snapshot" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand publish" -l origin -d 'Upload it to an object store as well: file:///FOLDER or s3://BUCKET/PREFIX' -r
complete -c bcai -n "__fish_bcai_using_subcommand publish" -l replicas -d 'Have it held by this many storage nodes besides this one: 3, or as many as the network has' -r
complete -c bcai -n "__fish_bcai_using_subcommand publish" -l ack -d 'How many of them must have it on disk before it is published: one, quorum (more than half) or all' -r -f -a "one\t''
quorum\t''
all\t''"
complete -c bcai -n "__fish_bcai_using_subcommand publish" -l chunking -d 'How files are cut: auto (cdc:64K that knows tar, zip, safetensors and Parquet), cdc:64K, cdc:256K, cdc:1M, fixed:1M, fixed:2M or fixed:4M' -r
complete -c bcai -n "__fish_bcai_using_subcommand publish" -l compress -d 'How chunks are compressed: none, lz4 or zstd:LEVEL' -r
complete -c bcai -n "__fish_bcai_using_subcommand publish" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand publish" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand publish" -l encrypt -d 'Encrypt it, so that only those read it whom `bcai keys grant KEY reader --dataset NAME` gives the key'
complete -c bcai -n "__fish_bcai_using_subcommand publish" -l plaintext -d 'Publish in plain, for everybody to read, though earlier versions are encrypted'
complete -c bcai -n "__fish_bcai_using_subcommand publish" -l skip-special -d 'Leave out sockets, FIFOs and devices instead of refusing the directory'
complete -c bcai -n "__fish_bcai_using_subcommand publish" -l in-place -d 'Serve larger files from where they are instead of storing their content; they must not be changed from then on'
complete -c bcai -n "__fish_bcai_using_subcommand publish" -l paranoid -d 'Read all files, also those that have not changed since an earlier snapshot'
complete -c bcai -n "__fish_bcai_using_subcommand publish" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand publish" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand publish" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand tag" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand tag" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand tag" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand tag" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand tag" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand yank" -l reason -d 'Why, in one line' -r
complete -c bcai -n "__fish_bcai_using_subcommand yank" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand yank" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand yank" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand yank" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand yank" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand mount" -s o -d 'Mount options; known: allow_other (let other users read), io=MODE (how contents reach their readers), fetch=STRATEGY (where they come from), readahead=SIZE (how far ahead)' -r
complete -c bcai -n "__fish_bcai_using_subcommand mount" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand mount" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand mount" -s f -l foreground -d 'Stay in the foreground; Ctrl-C unmounts'
complete -c bcai -n "__fish_bcai_using_subcommand mount" -l offline -d 'Take the version that this machine knows of, however old its log is, and ask nobody about it'
complete -c bcai -n "__fish_bcai_using_subcommand mount" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand mount" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand mount" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand remount" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand remount" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand remount" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand remount" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand remount" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand unmount" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand unmount" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand unmount" -l lazy -d 'Detach now and let those who use it finish'
complete -c bcai -n "__fish_bcai_using_subcommand unmount" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand unmount" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand unmount" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand list" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand list" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand list" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand list" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand list" -s h -l help -d 'Print help'
complete -c bcai -n "__fish_bcai_using_subcommand log" -l proof -d 'Prove that a version was published, whether it was withdrawn and what `latest` means' -r
complete -c bcai -n "__fish_bcai_using_subcommand log" -l cosign -d 'Add this node\'s signature to the checkpoint in this file' -r -F
complete -c bcai -n "__fish_bcai_using_subcommand log" -s o -l output -d 'Where to write it; without, to stdout' -r -F
complete -c bcai -n "__fish_bcai_using_subcommand log" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand log" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand log" -l checkpoint -d 'Sign the head of the log'
complete -c bcai -n "__fish_bcai_using_subcommand log" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand log" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand log" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand ls" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand ls" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand ls" -s R -l recursive -d 'Descend into directories'
complete -c bcai -n "__fish_bcai_using_subcommand ls" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand ls" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand ls" -s h -l help -d 'Print help'
complete -c bcai -n "__fish_bcai_using_subcommand cat" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand cat" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand cat" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand cat" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand cat" -s h -l help -d 'Print help'
complete -c bcai -n "__fish_bcai_using_subcommand export" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand export" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand export" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand export" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand export" -s h -l help -d 'Print help'
complete -c bcai -n "__fish_bcai_using_subcommand bundle; and not __fish_seen_subcommand_from export import" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand bundle; and not __fish_seen_subcommand_from export import" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand bundle; and not __fish_seen_subcommand_from export import" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand bundle; and not __fish_seen_subcommand_from export import" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand bundle; and not __fish_seen_subcommand_from export import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand bundle; and not __fish_seen_subcommand_from export import" -f -a "export" -d 'Write versions, and the log that says so, into one file'
complete -c bcai -n "__fish_bcai_using_subcommand bundle; and not __fish_seen_subcommand_from export import" -f -a "import" -d 'Take over the versions of a bundle, and pin them'
complete -c bcai -n "__fish_bcai_using_subcommand bundle; and __fish_seen_subcommand_from export" -l since -d 'Leave out what this version has: the machine that imports the file must have all of it already' -r
complete -c bcai -n "__fish_bcai_using_subcommand bundle; and __fish_seen_subcommand_from export" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand bundle; and __fish_seen_subcommand_from export" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand bundle; and __fish_seen_subcommand_from export" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand bundle; and __fish_seen_subcommand_from export" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand bundle; and __fish_seen_subcommand_from export" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand bundle; and __fish_seen_subcommand_from import" -l genesis -d 'The id of the network that it must be of, or a URI of a version that must be in it' -r
complete -c bcai -n "__fish_bcai_using_subcommand bundle; and __fish_seen_subcommand_from import" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand bundle; and __fish_seen_subcommand_from import" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand bundle; and __fish_seen_subcommand_from import" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand bundle; and __fish_seen_subcommand_from import" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand bundle; and __fish_seen_subcommand_from import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand diff" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand diff" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand diff" -l stat -d 'Only the totals, with the bytes that are new in the later version'
complete -c bcai -n "__fish_bcai_using_subcommand diff" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand diff" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand diff" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand prefetch" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand prefetch" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand prefetch" -l check -d 'Say how much of it is here, and fetch directories only; exit code 1 if something is missing'
complete -c bcai -n "__fish_bcai_using_subcommand prefetch" -l evict -d 'Drop it from the cache, as far as directories that are here name it, and fetch nothing; what is published, pinned, or open as a large file stays'
complete -c bcai -n "__fish_bcai_using_subcommand prefetch" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand prefetch" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand prefetch" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand pin" -l path -d 'Only what matches this pattern of paths (see `bcai prefetch --help`); may be given more than once' -r
complete -c bcai -n "__fish_bcai_using_subcommand pin" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand pin" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand pin" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand pin" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand pin" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand unpin" -l path -d 'Only the pin of exactly these patterns; without any, every pin of the snapshot' -r
complete -c bcai -n "__fish_bcai_using_subcommand unpin" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand unpin" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand unpin" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand unpin" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand unpin" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand cache" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand cache" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand cache" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand cache" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand cache" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand gc" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand gc" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand gc" -l dry-run -d 'Show every snapshot and when it goes, and take nothing away'
complete -c bcai -n "__fish_bcai_using_subcommand gc" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand gc" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand gc" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand verify" -l offline -d 'Check the proof in this file' -r -F
complete -c bcai -n "__fish_bcai_using_subcommand verify" -l genesis -d 'The network\'s id, or a URI of the version that the proof shall be of' -r
complete -c bcai -n "__fish_bcai_using_subcommand verify" -l checkpoint -d 'Check that each --key has signed the checkpoint in this file' -r -F
complete -c bcai -n "__fish_bcai_using_subcommand verify" -l key -d 'A key as `bcai log --checkpoint`, `bcai log --cosign` or another log\'s witness prints it; may be repeated' -r
complete -c bcai -n "__fish_bcai_using_subcommand verify" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand verify" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand verify" -l all -d 'Check everything in the store'
complete -c bcai -n "__fish_bcai_using_subcommand verify" -l repair -d 'Fetch from peers what is damaged or absent'
complete -c bcai -n "__fish_bcai_using_subcommand verify" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand verify" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and not __fish_seen_subcommand_from show new rotate passphrase grant revoke" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand keys; and not __fish_seen_subcommand_from show new rotate passphrase grant revoke" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand keys; and not __fish_seen_subcommand_from show new rotate passphrase grant revoke" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and not __fish_seen_subcommand_from show new rotate passphrase grant revoke" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and not __fish_seen_subcommand_from show new rotate passphrase grant revoke" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and not __fish_seen_subcommand_from show new rotate passphrase grant revoke" -f -a "show" -d 'Show the public key, and what it is in each network'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and not __fish_seen_subcommand_from show new rotate passphrase grant revoke" -f -a "new" -d 'Make a key for a node that has none'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and not __fish_seen_subcommand_from show new rotate passphrase grant revoke" -f -a "rotate" -d 'Put a new key in the place of this node\'s, in all of its networks'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and not __fish_seen_subcommand_from show new rotate passphrase grant revoke" -f -a "passphrase" -d 'Lock this node\'s keys with a passphrase, or with another one'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and not __fish_seen_subcommand_from show new rotate passphrase grant revoke" -f -a "grant" -d 'Give a key roles, beside those that it has'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and not __fish_seen_subcommand_from show new rotate passphrase grant revoke" -f -a "revoke" -d 'Take roles back from a key; without ROLES, all'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from show" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from show" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from show" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from show" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from new" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from new" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from new" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from new" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from new" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from rotate" -l dataset -d 'The key of this dataset, instead of this node\'s own' -r
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from rotate" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from rotate" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from rotate" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from rotate" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from rotate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from passphrase" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from passphrase" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from passphrase" -l remove -d 'Unlock them for good'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from passphrase" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from passphrase" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from passphrase" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from grant" -l dataset -d 'Only with this dataset' -r
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from grant" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from grant" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from grant" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from grant" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from grant" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from revoke" -l dataset -d 'Only with this dataset' -r
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from revoke" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from revoke" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from revoke" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from revoke" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand keys; and __fish_seen_subcommand_from revoke" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and not __fish_seen_subcommand_from status join leave release stake delegate params" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand validator; and not __fish_seen_subcommand_from status join leave release stake delegate params" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand validator; and not __fish_seen_subcommand_from status join leave release stake delegate params" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and not __fish_seen_subcommand_from status join leave release stake delegate params" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and not __fish_seen_subcommand_from status join leave release stake delegate params" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and not __fish_seen_subcommand_from status join leave release stake delegate params" -f -a "status" -d 'Show the validators, their weights, and this node\'s part (what `bcai validator` alone does)'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and not __fish_seen_subcommand_from status join leave release stake delegate params" -f -a "join" -d 'Make this node a validator'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and not __fish_seen_subcommand_from status join leave release stake delegate params" -f -a "leave" -d 'Stop being a validator'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and not __fish_seen_subcommand_from status join leave release stake delegate params" -f -a "release" -d 'Let an operator that was jailed join again, with another voting key (admins)'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and not __fish_seen_subcommand_from status join leave release stake delegate params" -f -a "stake" -d 'Say how much stake somebody has (admins)'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and not __fish_seen_subcommand_from status join leave release stake delegate params" -f -a "delegate" -d 'Put this node\'s stake behind an operator, or behind this node again'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and not __fish_seen_subcommand_from status join leave release stake delegate params" -f -a "params" -d 'Change parameters of the network (admins)'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from status" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from status" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from status" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from status" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from status" -s h -l help -d 'Print help'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from join" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from join" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from join" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from join" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from join" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from leave" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from leave" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from leave" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from leave" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from leave" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from release" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from release" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from release" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from release" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from release" -s h -l help -d 'Print help'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from stake" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from stake" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from stake" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from stake" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from stake" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from delegate" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from delegate" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from delegate" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from delegate" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from delegate" -s h -l help -d 'Print help'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from params" -l policy -d 'How validators are weighed: equal, delegated (by stake), useful-work (by proven storage) or hybrid (both)' -r
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from params" -l heartbeat -d 'Longest time without a height, in seconds' -r
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from params" -l block-time -d 'How long the next height is put off, in milliseconds, so that entries share it; 0: not at all' -r
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from params" -l epoch -d 'How long an epoch lasts at least, in seconds' -r
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from params" -l seats -d 'Most operators that vote' -r
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from params" -l replicas -d 'Acknowledgements of storage nodes that a version needs' -r
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from params" -l audits -d 'Auditors who confirm that something is stored' -r
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from params" -l publishers-only -d 'Whether a new name needs the role publisher' -r -f -a "true\t''
false\t''"
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from params" -l members-only -d 'Whether only members are shown the log and what is in its datasets: who has a role, a right, a name, a vote or stake' -r -f -a "true\t''
false\t''"
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from params" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from params" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from params" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from params" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand validator; and __fish_seen_subcommand_from params" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand status" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand status" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand status" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand status" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand status" -s h -l help -d 'Print help'
complete -c bcai -n "__fish_bcai_using_subcommand top" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand top" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand top" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand top" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand top" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand trace" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand trace" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand trace" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand trace" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand trace" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand peers; and not __fish_seen_subcommand_from list add block allow limit" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand peers; and not __fish_seen_subcommand_from list add block allow limit" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand peers; and not __fish_seen_subcommand_from list add block allow limit" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand peers; and not __fish_seen_subcommand_from list add block allow limit" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand peers; and not __fish_seen_subcommand_from list add block allow limit" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand peers; and not __fish_seen_subcommand_from list add block allow limit" -f -a "list" -d 'List every known peer, the connected and the best first (what `bcai peers` alone does)'
complete -c bcai -n "__fish_bcai_using_subcommand peers; and not __fish_seen_subcommand_from list add block allow limit" -f -a "add" -d 'Connect to a peer, and from now on whenever it can be'
complete -c bcai -n "__fish_bcai_using_subcommand peers; and not __fish_seen_subcommand_from list add block allow limit" -f -a "block" -d 'Disconnect a peer, ask it for nothing and refuse its connections, until it is allowed'
complete -c bcai -n "__fish_bcai_using_subcommand peers; and not __fish_seen_subcommand_from list add block allow limit" -f -a "allow" -d 'Lift the block of a peer, or the ban of one that sent wrong bytes'
complete -c bcai -n "__fish_bcai_using_subcommand peers; and not __fish_seen_subcommand_from list add block allow limit" -f -a "limit" -d 'Limit the bytes of objects sent and received in a second, or show the limits'
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from list" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from list" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from list" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from list" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from add" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from add" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from add" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from add" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help'
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from block" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from block" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from block" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from block" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from block" -s h -l help -d 'Print help'
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from allow" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from allow" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from allow" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from allow" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from allow" -s h -l help -d 'Print help'
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from limit" -l upload -d 'Bytes a second, such as 10MiB, or `unlimited`' -r
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from limit" -l download -d 'The same for bytes received' -r
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from limit" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from limit" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from limit" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from limit" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand peers; and __fish_seen_subcommand_from limit" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand alerts; and not __fish_seen_subcommand_from list ack" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand alerts; and not __fish_seen_subcommand_from list ack" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand alerts; and not __fish_seen_subcommand_from list ack" -l all -d 'Also those that have cleared since the node was started'
complete -c bcai -n "__fish_bcai_using_subcommand alerts; and not __fish_seen_subcommand_from list ack" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand alerts; and not __fish_seen_subcommand_from list ack" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand alerts; and not __fish_seen_subcommand_from list ack" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand alerts; and not __fish_seen_subcommand_from list ack" -f -a "list" -d 'List the alerts that hold, the worst first (what `bcai alerts` alone does)'
complete -c bcai -n "__fish_bcai_using_subcommand alerts; and not __fish_seen_subcommand_from list ack" -f -a "ack" -d 'Take note of an alert'
complete -c bcai -n "__fish_bcai_using_subcommand alerts; and __fish_seen_subcommand_from list" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand alerts; and __fish_seen_subcommand_from list" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand alerts; and __fish_seen_subcommand_from list" -l all -d 'Also those that have cleared since the node was started'
complete -c bcai -n "__fish_bcai_using_subcommand alerts; and __fish_seen_subcommand_from list" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand alerts; and __fish_seen_subcommand_from list" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand alerts; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c bcai -n "__fish_bcai_using_subcommand alerts; and __fish_seen_subcommand_from ack" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand alerts; and __fish_seen_subcommand_from ack" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand alerts; and __fish_seen_subcommand_from ack" -l all -d 'Of all that hold'
complete -c bcai -n "__fish_bcai_using_subcommand alerts; and __fish_seen_subcommand_from ack" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand alerts; and __fish_seen_subcommand_from ack" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand alerts; and __fish_seen_subcommand_from ack" -s h -l help -d 'Print help'
complete -c bcai -n "__fish_bcai_using_subcommand doctor" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand doctor" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand doctor" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand doctor" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand bugreport" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand bugreport" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand bugreport" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand bugreport" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand bugreport" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand demo" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand demo" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand demo" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand demo" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand demo" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bcai -n "__fish_bcai_using_subcommand completions" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand completions" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand completions" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand completions" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand completions" -s h -l help -d 'Print help'
complete -c bcai -n "__fish_bcai_using_subcommand man" -l home -d 'Keep everything this node owns under one folder' -r -f -a "(__fish_complete_directories)"
complete -c bcai -n "__fish_bcai_using_subcommand man" -s c -l config -d 'Set a configuration key for this run (see CONFIGURATION in bcai(1))' -r
complete -c bcai -n "__fish_bcai_using_subcommand man" -l json -d 'Print one JSON document instead of text, and progress as JSON lines on stderr'
complete -c bcai -n "__fish_bcai_using_subcommand man" -s q -l quiet -d 'Print no progress and no confirmations'
complete -c bcai -n "__fish_bcai_using_subcommand man" -s h -l help -d 'Print help (see more with \'--help\')'

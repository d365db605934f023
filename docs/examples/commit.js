#!/usr/bin/gjs -m
// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Commits the active layer of a disk into its base while the guest runs, and moves the disk there.
//
// usage: gjs -m commit.js /org/blockjobd1/domain/NAME/disk/TARGET

import Gio from 'gi://Gio';
import GLib from 'gi://GLib';
import System from 'system';

const SERVICE = 'org.blockjobd1';
const DISK = `${SERVICE}.Disk`;
const JOB = `${SERVICE}.Job`;
const MAX_TIMEOUT = 0x7fffffff;

// The service went away, before the call or in the middle of it: what it did is seen when it is back.
const AWAY = ['NoReply', 'ServiceUnknown', 'NameHasNoOwner'].map(name => `org.freedesktop.DBus.Error.${name}`);
// QEMU went away, or somebody else ends the job: Completed follows.
const ENDING = ['Disconnected', 'InvalidState', 'NotActive'].map(name => `${SERVICE}.Error.${name}`);

Gio._promisify(Gio.DBusConnection.prototype, 'call', 'call_finish');

if (ARGV.length !== 1) {
    printerr('usage: gjs -m commit.js DISK-PATH');
    System.exit(1);
}

const disk = ARGV[0];
const bus = Gio.DBus.system;
const loop = GLib.MainLoop.new(null, false);
let job = null;
let status = 1;

async function call(path, iface, method, parameters) {
    const reply = await bus.call(SERVICE, path, iface, method, parameters, null, Gio.DBusCallFlags.NONE,
        MAX_TIMEOUT, null);
    return reply.recursiveUnpack();
}

async function properties(path, iface) {
    const [all] = await call(path, 'org.freedesktop.DBus.Properties', 'GetAll', new GLib.Variant('(s)', [iface]));
    return all;
}

function option(name) {
    return new GLib.Variant('(a{sv})', [{[name]: new GLib.Variant('b', true)}]);
}

// The job that is there already, since this program or the service was interrupted say; else a new one.
async function findOrStart() {
    let path = (await properties(disk, DISK)).Job;
    if (path === '/')
        [path] = await call(disk, DISK, 'Commit', option('active'));
    else if ((await properties(path, JOB)).Type !== 'active-commit')
        throw new Error(`${path}: another job is at work on this disk`);
    print('job', path);
    return path;
}

// Where do things stand, and what is due?
async function step() {
    job ??= await findOrStart();
    const {Result, State, DiskTarget} = await properties(job, JOB);
    if (Result) {
        const {Source} = await properties(disk, DISK);
        print(`${Result}: ${DiskTarget} is ${Source}`);
        status = ['completed', 'pivoted'].includes(Result) ? 0 : 1;
        over = true;
    } else if (State === 'ready') {
        await call(job, JOB, 'Pivot', option('async'));
        print('ready, pivot');
    }
}

// One step at a time. What happens during one is looked at after it.
let busy = false, news = false, over = false;
async function look() {
    news = true;
    if (busy || over)
        return;
    busy = true;
    while (news && !over) {
        news = false;
        try {
            await step();
        } catch (error) {
            const name = error instanceof GLib.Error ? Gio.DBusError.get_remote_error(error) : null;
            if (AWAY.includes(name) || job && ENDING.includes(name))
                continue; // a signal follows
            printerr(`commit.js: ${error.message}`);
            over = true;
        }
    }
    busy = false;
    if (over)
        loop.quit();
}

// Before the job is started, so that none of its signals can be missed.
bus.signal_subscribe(SERVICE, JOB, null, null, null, Gio.DBusSignalFlags.NONE, look);
// Calls look() at once when the service is there, and each time it has come back.
Gio.bus_watch_name_on_connection(bus, SERVICE, Gio.BusNameWatcherFlags.AUTO_START, look, null);
loop.run();
System.exit(status);

-- GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
-- Prosody module: at a reload, take over changed accounts and groups without a restart. EdgeVPN.io does not sign in
-- again by itself after a restart, so each restart of prosody would have to be followed by one of every node.
--
-- mod_groups reads its file only when it is loaded, and users who are signed in keep the roster that they had. This
-- module loads mod_groups again, gives the users who are signed in their new rosters, and ends sessions without account.

local modulemanager = require "core.modulemanager";
local rostermanager = require "core.rostermanager";
local usermanager = require "core.usermanager";
local st = require "util.stanza";

local host = prosody.hosts[module.host];

-- Removes the contacts that come from groups from a roster, and returns them.
local function take_group_contacts(roster)
	local taken = {};
	for jid, item in pairs(roster) do
		if jid and item.persist == false then
			taken[jid] = item;
		end
	end
	for jid in pairs(taken) do
		roster[jid] = nil;
	end
	return taken;
end

-- Sends what each session of the user has announced to a contact that is new to it.
local function announce(user, jid)
	for _, session in pairs(user.sessions) do
		if session.presence then
			local presence = st.clone(session.presence);
			presence.attr.from, presence.attr.to = session.full_jid, jid;
			module:send(presence);
		end
	end
end

local function refresh(username, user)
	local before = take_group_contacts(user.roster);
	module:fire_event("roster-load", { username = username, host = module.host, roster = user.roster });
	for jid, item in pairs(user.roster) do
		if jid and item.persist == false and not before[jid] then
			rostermanager.roster_push(username, module.host, jid);
			announce(user, jid);
		end
	end
	for jid in pairs(before) do
		if not user.roster[jid] then
			rostermanager.roster_push(username, module.host, jid);
		end
	end
end

local function end_sessions(username, user)
	module:log("info", "The account %s was removed: its sessions end", username);
	local sessions = {};
	for _, session in pairs(user.sessions) do
		sessions[#sessions + 1] = session;
	end
	for _, session in ipairs(sessions) do
		session:close({ condition = "not-authorized", text = "The account was removed" });
	end
end

module:hook_global("config-reloaded", function ()
	local is_loaded, err = modulemanager.reload(module.host, "groups");
	if not is_loaded then
		module:log("error", "The groups were not read again: %s", err);
		return;
	end
	host.roster_cache = nil;
	local users = {};
	for username, user in pairs(host.sessions) do
		users[username] = user;
	end
	-- First all accounts: a user whose account was removed is no contact any more. The accounts are asked themselves,
	-- because usermanager takes everybody for existing who is signed in.
	local accounts = usermanager.get_provider(module.host);
	for username, user in pairs(users) do
		if not accounts.user_exists(username) then
			end_sessions(username, user);
			users[username] = nil;
		end
	end
	for username, user in pairs(users) do
		if user.roster then
			refresh(username, user);
		end
	end
	module:log("info", "Accounts and groups were taken over");
end);

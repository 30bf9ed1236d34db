"""The Pulumi program: reads the settings, declares the components, exports what they offer."""

import signal

import pulumi

from components import engine, settings
from components.registry_cache import RegistryCache

# When something has failed, Pulumi interrupts the program. Python would add a traceback of what it
# was waiting for to the error that people are looking for.
signal.signal(signal.SIGINT, signal.SIG_DFL)

try:
    stack = settings.load()
    facts = engine.discover(stack.stack)
except (settings.SettingsError, engine.EngineError) as error:
    raise pulumi.RunError(str(error)) from None

cache = RegistryCache("caches", stack, facts)

pulumi.export("mirrors", cache.mirrors)
pulumi.export(
    "caches",
    {
        host: {
            "endpoint": proxy.endpoint,
            "container": proxy.container,
            "volume": proxy.volume,
            "image": proxy.image,
        }
        for host, proxy in cache.proxies.items()
    },
)
pulumi.export("talosctlFlags", cache.talosctl_flags)

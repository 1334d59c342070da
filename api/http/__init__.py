"""The HTTP door: one module per thing it does, put together by ``api.app``.

``door`` lets requests in and logs what became of them; ``access`` knows who may ask and see what; ``bodies`` turns JSON
into commands; ``commands``, ``reads``, ``feed`` and ``health`` are the routes; ``problems`` is how all of them say no;
``openapi`` describes them.
"""

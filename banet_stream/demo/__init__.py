"""The browser demo, ``banet-stream demo``: a page over the same public API as the command line.

command    options and start                 app        the page: tabs, theme, examples
video      the Video tab                     webcam     the Webcam tab: WebRTC
photo      the Photo tab                     explained  the How it works tab
chooser    the choice of a background        uploads    what may come in, and in which words it is refused
sessions   one user's files and jobs         sharing    one model, taken in turns
samples    example clip and backgrounds, drawn on the spot

Needs the extra ``demo`` (Gradio, aiortc).
"""
